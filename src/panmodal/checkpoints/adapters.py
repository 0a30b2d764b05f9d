"""Adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

Tensors are named after the modules of the model in `transformers`, so that PEFT puts an adapter written here upon that
model: `base_model.model.PATH.lora_A.weight`, and `base_model.model.PATH.weight` of what was trained whole beside the
adapters (`modules_to_save`), as a connector.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from panmodal.checkpoints.names import Names, To, settle, to_ours, to_theirs
from panmodal.checkpoints.store import join_rows, read_json, read_pickle, replacing, split_rows, write_json
from panmodal.errors import CheckpointError
from panmodal.language import LanguageModel
from panmodal.lora import LoraLinear, adapters, linears

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
# LLaVA's modules have other places in `transformers` (from version 5) than their tensors in its files.
MOVED = {"language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head", "": "model."}
TOLD = {  # settings of plain LoRA, and those that change nothing about finished adapters
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
PLAIN: dict[str, Collection[Any]] = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}


def in_memory(names: Names, model_type: str) -> Names:
    """A format's table with its modules where `transformers` has them in memory."""
    settled = settle(names)
    if not model_type.startswith("llava"):
        return settled
    moved = {}
    for theirs, to in settled.items():
        start = next(start for start in MOVED if theirs.startswith(start))
        moved[MOVED[start] + theirs.removeprefix(start)] = to
    return moved


def save_adapter(folder: Path, model: nn.Module, names: Names, base: str, whole: Collection[str]) -> None:
    """Writes a model's adapters, and all of the modules of which a parameter is among `whole`, by our names.

    `names` is the table `in_memory`; `base` says what the adapters are for.
    """
    tensors: dict[str, Tensor] = {}
    scales: dict[str, tuple[int, float]] = {}
    found = {f"{name}.weight": adapter for name, adapter in adapters(model).items()}
    places = to_theirs(found, names)
    for published, to in places.items():
        path = published.removesuffix(".weight")
        a, b, alpha = _published(to, found, [_linear(model, name).out_features for name in to.names])
        tensors[f"{PREFIX}{path}.lora_A.weight"], tensors[f"{PREFIX}{path}.lora_B.weight"] = a, b
        scales[path] = len(a), alpha
    rank, alpha = Counter(scales.values()).most_common(1)[0][0]
    modules = {name.rpartition(".")[0] for name in whole}
    kept = {n: p.detach() for n, p in model.named_parameters() if n.rpartition(".")[0] in modules}
    saved = set()
    for published, to in to_theirs(kept, names).items():
        joined = join_rows([kept[name] for name in to.names], to)
        joined = (joined.T if to.transposed else joined)[(None,) * to.ones]
        tensors[PREFIX + published] = joined.clone(memory_format=torch.contiguous_format)
        saved.add(published.rpartition(".")[0])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(adapter.dropout for adapter in found.values()),
        "rank_pattern": {path: r for path, (r, _) in scales.items() if r != rank},
        "alpha_pattern": {path: a for path, (_, a) in scales.items() if a != alpha},
        "target_modules": sorted(scales),  # whole paths, so that no other module has such a name
        "modules_to_save": sorted(saved) or None,
        "fan_in_fan_out": any(to.transposed for to in places.values()),
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
    }
    with replacing(folder) as fresh:
        write_json(fresh / CONFIG, config)
        save_file({name: tensor.cpu() for name, tensor in tensors.items()}, fresh / WEIGHTS, {"format": "pt"})


def _linear(model: nn.Module, name: str) -> nn.Linear:
    """The linear map of a weight's name"""
    found = model.get_submodule(name.removesuffix(".weight"))
    assert isinstance(found, nn.Linear)
    return found


def base_of(folder: Path) -> str:
    """What the adapters of a folder are for. Raises CheckpointError if it does not say."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"{folder} does not say what its adapters are for; load that, with adapter={folder}")
    return str(base)


def _published(to: To, found: Mapping[str, LoraLinear], rows: list[int]) -> tuple[Tensor, Tensor, float]:
    """A and B of a published matrix, and alpha. Where it holds several of ours, as queries, keys and values, their
    adapters lie side by side: as many ranks, and B zeros but where an adapter meets its own rows."""
    parts = [found.get(name) for name in to.names]
    there = [part for part in parts if part is not None]
    rank = sum(part.rank for part in there)
    bs, start = [], 0
    for part, count in zip(parts, rows, strict=True):
        b = torch.zeros(count, rank)
        if part is not None:
            b[:, start : start + part.rank] = part.lora_b.detach()
            start += part.rank
        bs.append(b)
    a = torch.cat([part.lora_a.detach() for part in there]).float()
    return a.contiguous(), (join_rows(bs, to)), there[0].scale * rank


def read_adapter(
    folder: Path, model: nn.Module, language: LanguageModel, tables: list[Names], allow_pickle: bool = False
) -> set[str]:
    """Puts the adapters of a folder on the language model, and what was trained whole into the model; returns the
    latter's names. `tables` are those by which its modules may be named.

    Raises CheckpointError, naming it, for a setting or a tensor that would otherwise be lost, and for adapters outside
    the language model.
    """
    config = read_json(folder / CONFIG)
    _check(folder, config)
    tensors = _tensors(folder, allow_pickle)
    prefix = next(name for name, part in model.named_modules() if part is language)
    ours = {f"{prefix}.{name}".removeprefix("."): linear for name, linear in linears(language).items()}
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: set[str] = set()
    for name, tensor in tensors.items():
        path, half = _taken_apart(name)
        if half:
            pairs.setdefault(path, {})[half] = tensor
        else:
            whole.update(_fill(folder, model, path, tensor, tables))
    if not pairs:
        raise CheckpointError(f"{folder} has no adapters")
    for path, pair in pairs.items():
        to = _place(f"{path}.weight", tables)
        if to is None or any(name.removesuffix(".weight") not in ours for name in to.names):
            raise CheckpointError(
                f"{folder} adapts {path!r}, which is no linear map in the language model's blocks; panmodal's adapters "
                "are in these alone"
            )
        names = [name.removesuffix(".weight") for name in to.names]
        a, b = _halves(folder, path, pair, [ours[name] for name in names])
        alpha = _setting(config, "alpha_pattern", path, config.get("lora_alpha", 8))
        for name, rows in zip(names, split_rows(b, to), strict=True):  # all of A, and of B each its rows
            adapter = LoraLinear(ours[name], len(a), alpha, config.get("lora_dropout") or 0.0)
            adapter.lora_a.data.copy_(a)
            adapter.lora_b.data.copy_(rows)
            model.set_submodule(name, adapter)
    return whole


def _halves(folder: Path, path: str, pair: Mapping[str, Tensor], linears: list[nn.Linear]) -> tuple[Tensor, Tensor]:
    """A and B of an adapter, checked."""
    if pair.keys() != {"A", "B"}:
        raise CheckpointError(f"{folder} has not both lora_A and lora_B of {path!r}")
    a, b = pair["A"].float(), pair["B"].float()
    rows, width = sum(linear.out_features for linear in linears), linears[0].in_features
    if a.shape[1:] != (width,) or b.shape != (rows, len(a)):
        raise CheckpointError(
            f"{folder} is for another model: its adapter of {path!r} is {list(a.shape)} and {list(b.shape)}, and this "
            f"model's map takes {width} numbers and gives {rows}"
        )
    return a, b


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder / CONFIG} is of {config.get('peft_type')}; panmodal reads LORA")
    lost = {
        k: v for k, v in config.items() if k not in TOLD | PLAIN.keys() and v and v != {"ephemeral_gpu_offload": False}
    }
    lost |= {k: config[k] for k, plain in PLAIN.items() if k in config and config[k] not in plain}
    if lost:
        raise CheckpointError(f"{folder / CONFIG} sets {lost}; panmodal reads plain LoRA")
    if (folder / "non_lora_trainables.bin").exists():
        raise CheckpointError(
            f"{folder} has weights beside its adapters in non_lora_trainables.bin, which is not PEFT's; "
            "merge all of them with LLaVA's own script, for without these the adapters are not what was trained"
        )


def _tensors(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    if (folder / WEIGHTS).is_file():
        return load_file(folder / WEIGHTS)
    if not (folder / PICKLE).is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}")
    return read_pickle(folder / PICKLE, allow_pickle)


def _taken_apart(name: str) -> tuple[str, str]:
    """`base_model.model.PATH.lora_A.weight` -> PATH and "A"; of another tensor its name and "" """
    path = name.removeprefix(PREFIX)
    found = re.fullmatch(r"(.+)\.lora_([AB])\.weight", path)
    return (found[1], found[2]) if found else (path, "")


def _place(name: str, tables: list[Names]) -> To | None:
    return next((to for names in tables if (to := to_ours(name, names)) and to.names), None)


def _fill(folder: Path, model: nn.Module, name: str, tensor: Tensor, tables: list[Names]) -> tuple[str, ...]:
    """Puts what was trained whole in its place; returns its names."""
    to, known = _place(name, tables), dict(model.named_parameters(remove_duplicate=False))
    if to is None or any(ours not in known for ours in to.names):
        raise CheckpointError(f"{folder} has the tensor {name!r}, which this model lacks")
    whole = tensor[(0,) * to.ones]
    whole = whole.T if to.transposed else whole
    for ours, part in zip(to.names, split_rows(whole, to), strict=True):
        if known[ours].shape != part.shape:
            raise CheckpointError(
                f"{folder}: {name!r} is {list(part.shape)} and this model's {list(known[ours].shape)}"
            )
        known[ours].data.copy_(part)
    return to.names


def _setting(config: Mapping[str, Any], pattern: str, path: str, otherwise: float) -> float:
    """What a pattern of module names, whole or ends of them, sets for a module."""
    found = [value for end, value in (config.get(pattern) or {}).items() if f".{path}".endswith(f".{end}")]
    return float(found[0] if found else otherwise)
