"""Checkpoint folders in the published layout: strict reading, and crash-safe writing.

A folder holds `config.json`, `model.safetensors` (or shards and `model.safetensors.index.json`),
and small files beside them (tokenizer, image processor, chat template) that travel along.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from panmodal.checkpoints.names import Names, To, settle, to_ours, to_theirs
from panmodal.errors import CheckpointError
from panmodal.language import LanguageModel

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
SIDECARS = (
    *TOKENIZER_FILES,
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    *(f"qformer_tokenizer/{name}" for name in TOKENIZER_FILES),
)
# Published weight files that come without a config.json, and what it would say.
BARE: dict[str, dict[str, Any]] = {
    "imagebind_huge.pth": {
        "model_type": "imagebind",
        "license": "CC-BY-NC-SA 4.0: not for commercial use",
        **{f"{tower}_config": {} for tower in ("vision", "text", "audio", "depth", "thermal", "imu")},
    },
}
SHARD_BYTES = 5_000_000_000
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass
class Checkpoint:
    """What a loaded model remembers of its files, so that it can be written back as it came."""

    config: dict[str, Any]
    names: Names
    files: dict[str, bytes] = field(default_factory=dict)
    spare: dict[str, Tensor] = field(default_factory=dict)  # published tensors that no module uses

    def under(self, folder: str) -> dict[str, bytes]:
        """The small files in a folder within."""
        return {name.removeprefix(folder): content for name, content in self.files.items() if name.startswith(folder)}

    def json(self, name: str) -> dict[str, Any]:
        """One of the small files, empty if there is none."""
        content = json.loads(self.files.get(name, b"{}"))
        return content if isinstance(content, dict) else {}

    @property
    def chat_template(self) -> str | None:
        """From whichever of the four places that files have had it in."""
        if "chat_template.jinja" in self.files:
            return self.files["chat_template.jinja"].decode()
        for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
            found = self.json(name).get("chat_template")
            if isinstance(found, list):
                found = {t["name"]: t["template"] for t in found}.get("default")
            if found:
                return str(found)
        return None

    @property
    def image_processor(self) -> dict[str, Any]:
        return self.json("preprocessor_config.json") or self.json("processor_config.json").get("image_processor", {})

    @property
    def video_processor(self) -> dict[str, Any]:
        """Where files say nothing of videos of their own, they are seen as pictures are."""
        own = self.json("video_preprocessor_config.json") or self.json("processor_config.json").get("video_processor")
        return own or self.image_processor


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint, not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def read_config(folder: Path) -> dict[str, Any]:
    bare = _bare(folder)
    if bare is not None and not (folder / "config.json").exists():
        return dict(BARE[bare.name])
    return read_json(folder / "config.json")


def _bare(folder: Path) -> Path | None:
    return next((folder / name for name in BARE if (folder / name).is_file()), None)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}, so it is not a checkpoint folder") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, not an object")
    return content


def read_sidecars(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SIDECARS if (folder / name).is_file()}


@contextmanager
def open_weights(folder: Path, allow_pickle: bool = False) -> Iterator[dict[str, Stored]]:
    """The tensors of a checkpoint folder by their published names, read one at a time when asked.

    Only safetensors is opened. A pickle can carry code, and is read (weights only) on demand alone.
    """
    index = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if index.is_file():
        files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    elif not files[0].is_file():
        yield _unpickled(folder, allow_pickle)
        return
    found: dict[str, Stored] = {}
    with ExitStack() as stack:
        for file in files:
            try:
                opened = stack.enter_context(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file} is not a whole safetensors file ({error}); download or save it again"
                ) from None
            for name in opened.keys():  # noqa: SIM118 (not a mapping)
                shape = tuple(opened.get_slice(name).get_shape())
                found[name] = Stored(shape, partial(opened.get_tensor, name))
        yield found


def _unpickled(folder: Path, allow_pickle: bool) -> dict[str, Stored]:
    bare = _bare(folder)
    pickles = sorted(folder.glob("pytorch_model*.bin")) or ([bare] if bare else [])
    if not pickles:
        raise CheckpointError(f"{folder} has no model.safetensors")
    return as_stored({name: t for file in pickles for name, t in read_pickle(file, allow_pickle).items()})


def read_pickle(file: Path, allow_pickle: bool) -> dict[str, Any]:
    """What a pickle of plain tensors holds; never code. Raises CheckpointError unless `allow_pickle`."""
    if not allow_pickle:
        raise CheckpointError(
            f"{file} is a pickle, which can carry code; save it as safetensors, or, if you trust its "
            "source, ask for it with allow_pickle=True (--allow-pickle)"
        )
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or broken pickle raises
        raise CheckpointError(f"{file} cannot be read as plain weights: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds {type(content).__name__}, not tensors by name")
    return content


def as_stored(tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    return {name: Stored(tuple(t.shape), t.clone) for name, t in tensors.items()}


def load_weights(
    module: nn.Module,
    names: Names,
    stored: Mapping[str, Stored],
    dtype: torch.dtype,
    spare_under: tuple[str, ...] = (),
) -> tuple[Names, dict[str, Tensor]]:
    """Fills a module, built on the meta device, from a checkpoint's tensors.

    Returns the settled table and the spare tensors: those that the table calls so, and those under
    `spare_under` (prefixes of ours) that this module, shorter than the published one, does without.
    Raises CheckpointError that names every tensor missing, unknown or of another shape.
    """
    names = settle(names, stored)
    wanted = dict(module.named_parameters())
    tied = module.state_dict().keys() - wanted.keys()
    filled: dict[str, Tensor] = {}
    spare: dict[str, Tensor] = {}
    problems: list[str] = []
    for published, tensor in stored.items():
        to = to_ours(published, names)
        if to is None:
            problems.append(f"unknown tensor {published!r} {list(tensor.shape)}")
        elif not to.names or (to.names[0] not in wanted and to.names[0].startswith(spare_under or ("\0",))):
            spare[published] = tensor.read()
        elif to.names[0] in tied:
            continue  # the tied head, written out a second time
        elif any(name not in wanted for name in to.names):
            problems.append(f"unknown tensor {published!r} {list(tensor.shape)}: config.json describes a model without")
        else:
            expected = _published_shape([wanted[n].shape for n in to.names], to.transposed, to.ones)
            if tensor.shape != expected:
                problems.append(f"{published!r} is {list(tensor.shape)}, config.json makes it {list(expected)}")
                filled |= dict.fromkeys(to.names, torch.empty(0))
                continue
            whole = tensor.read().to(dtype)[(0,) * to.ones]
            whole = whole.T if to.transposed else whole
            pieces = split_rows(whole, to) if len(to.names) > 1 else [whole]
            filled |= zip(to.names, pieces, strict=True)
    missing = [name for name in wanted if name not in filled]
    for published, to in to_theirs(missing, names).items():
        expected = _published_shape([wanted[n].shape for n in to.names], to.transposed, to.ones)
        problems.append(f"{published!r} {list(expected)} is missing")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError("the weights do not fit config.json: " + "; ".join(problems[:5]) + more)
    contiguous = {name: tensor.contiguous() for name, tensor in filled.items()}
    module.load_state_dict(contiguous, strict=False, assign=True)
    for part in module.modules():
        if isinstance(part, LanguageModel):
            part.tie()
    return names, spare


def published_weights(module: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The module's tensors under their published names and in their published shapes."""
    ours = {name: p.detach() for name, p in module.named_parameters()}
    out: dict[str, Tensor] = {}
    written: set[str] = set()
    for published, to in to_theirs(ours, checkpoint.names).items():
        whole = join_rows([ours[name] for name in to.names], to) if len(to.names) > 1 else ours[to.names[0]]
        whole = whole.T if to.transposed else whole
        whole = whole[(None,) * to.ones].contiguous()
        out[published] = whole.clone() if written.issuperset(to.names) else whole  # files hold no tensor twice
        written.update(to.names)
    return out | {name: tensor for name, tensor in checkpoint.spare.items() if name not in out}


def split_rows(whole: Tensor, to: To) -> list[Tensor]:
    """Several of our tensors from the rows of a published one, and `join_rows` back."""
    rows = whole.reshape(to.groups, len(to.names), -1, *whole.shape[1:])
    return [part.flatten(0, 1) for part in rows.unbind(1)]


def join_rows(parts: list[Tensor], to: To) -> Tensor:
    return torch.stack([part.reshape(to.groups, -1, *part.shape[1:]) for part in parts], 1).flatten(0, 2)


def _published_shape(shapes: list[torch.Size], transposed: bool, ones: int) -> tuple[int, ...]:
    first = sum(shape[0] for shape in shapes) if shapes[0] else 0
    shape = (first, *shapes[0][1:]) if shapes[0] else ()
    return (1,) * ones + (shape[::-1] if transposed else shape)


def save_checkpoint(
    folder: Path,
    module: nn.Module,
    checkpoint: Checkpoint,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a checkpoint folder in the published layout. In an existing folder the weights and the
    files beside them are replaced, and what else lies there stays."""
    weights = published_weights(module, checkpoint)
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    kept = next(iter(weights.values())).dtype
    config = {**checkpoint.config, "dtype": str(kept).removeprefix("torch.")}
    config.pop("torch_dtype", None)
    with replacing(folder) as fresh:
        write_json(fresh / "config.json", config)
        for name, content in checkpoint.files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(content)
        shards: list[dict[str, Tensor]] = [{}]
        room = shard_bytes
        for name in sorted(weights):
            if shards[-1] and weights[name].nbytes > room:
                shards.append({})
                room = shard_bytes
            shards[-1][name] = weights[name]
            room -= weights[name].nbytes
        if len(shards) == 1:
            save_file(weights, fresh / "model.safetensors", {"format": "pt"})
            return
        files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        for file, shard in zip(files, shards, strict=True):
            save_file(shard, fresh / file, {"format": "pt"})
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        total = sum(t.nbytes for t in weights.values())
        write_json(fresh / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` when all is on the disk.

    What the old folder held besides weights and what is written anew is taken over. A crash at any
    moment leaves the old folder or the new one, never a mixture; in the instant in which they change
    places the old one bears a name that ends in `.old`. What bears such a name is whole; what is
    unfinished, or half removed, bears one that ends in `.new`.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; name a folder to save in")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.new"
    fresh.mkdir()
    try:
        yield fresh
        old = fresh.with_suffix(".old")
        for item in folder.iterdir() if folder.exists() else ():
            if not (fresh / item.name).exists() and not any(item.match(p) for p in WEIGHTS):
                shutil.copytree(item, fresh / item.name) if item.is_dir() else shutil.copy2(item, fresh)
        for path in [*fresh.rglob("*"), fresh]:
            flush(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        flush(folder.parent)
        if old.exists():
            old.rename(fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
