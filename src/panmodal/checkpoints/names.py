"""Published weight names -> ours, one table per format, and how a table is applied both ways.

A row's left side is the path of a module in the published file (its `.weight` and `.bias` follow)
or of a single tensor; `{}` stands for a number, `[prefix.]` for a prefix that some files have and
others lack. The right side is the path in our modules, a `To` where more than the name changes, or
SPARE for tensors that the library does not use but writes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from torch import nn


@dataclass(frozen=True)
class To:
    """Where a published tensor goes: to one of our tensors, or split evenly among several."""

    names: tuple[str, ...]
    transposed: bool = False  # the file has [in, out]
    ones: int = 0  # the file has this many leading axes of length one
    groups: int = 1  # the file has the several by turns: in this many groups of rows, in each a share of every one


SPARE = To(())
Names = Mapping[str, str | To]


def as_named(module: nn.Module, prefix: str = "") -> Names:
    """Of a module whose parameters are published by the names that they have in it."""
    paths = (name.removesuffix(".weight").removesuffix(".bias") for name, _ in module.named_parameters())
    return {path: f"{prefix}{path}" for path in (re.sub(r"(?<=\.)\d+(?=\.|$)", "{}", path) for path in paths)}


def qkv(name: str, transposed: bool = False) -> To:
    return To(tuple(name.format(part) for part in "qkv"), transposed)


LLAMA: Names = {  # Vicuna, Mistral, Qwen2 and Qwen3, too
    "model.embed_tokens": "embed.vectors",
    "model.layers.{}.input_layernorm": "body.blocks.{}.attn_norm",
    "model.layers.{}.self_attn.q_proj": "body.blocks.{}.attn.q",
    "model.layers.{}.self_attn.k_proj": "body.blocks.{}.attn.k",
    "model.layers.{}.self_attn.v_proj": "body.blocks.{}.attn.v",
    "model.layers.{}.self_attn.o_proj": "body.blocks.{}.attn.out",
    "model.layers.{}.self_attn.q_norm": "body.blocks.{}.attn.q_norm",
    "model.layers.{}.self_attn.k_norm": "body.blocks.{}.attn.k_norm",
    "model.layers.{}.self_attn.rotary_emb.inv_freq": SPARE,
    "model.layers.{}.post_attention_layernorm": "body.blocks.{}.mlp_norm",
    "model.layers.{}.mlp.gate_proj": "body.blocks.{}.mlp.gate",
    "model.layers.{}.mlp.up_proj": "body.blocks.{}.mlp.up",
    "model.layers.{}.mlp.down_proj": "body.blocks.{}.mlp.down",
    "model.norm": "body.norm",
    "lm_head": "head",
}

GPT2: Names = {
    "[transformer.]wte": "embed.vectors",
    "[transformer.]wpe": "embed.positions",
    "[transformer.]h.{}.ln_1": "body.blocks.{}.attn_norm",
    "[transformer.]h.{}.attn.c_attn": qkv("body.blocks.{{}}.attn.{}", transposed=True),
    "[transformer.]h.{}.attn.c_proj": To(("body.blocks.{}.attn.out",), transposed=True),
    "[transformer.]h.{}.attn.bias": SPARE,
    "[transformer.]h.{}.attn.masked_bias": SPARE,
    "[transformer.]h.{}.ln_2": "body.blocks.{}.mlp_norm",
    "[transformer.]h.{}.mlp.c_fc": To(("body.blocks.{}.mlp.up",), transposed=True),
    "[transformer.]h.{}.mlp.c_proj": To(("body.blocks.{}.mlp.down",), transposed=True),
    "[transformer.]ln_f": "body.norm",
    "lm_head": "head",
}

OPT: Names = {
    "[model.]decoder.embed_tokens": "embed.vectors",
    "[model.]decoder.embed_positions": "embed.positions",
    "[model.]decoder.project_in": "embed.widen",
    "[model.]decoder.project_out": "narrow",
    "[model.]decoder.layers.{}.self_attn_layer_norm": "body.blocks.{}.attn_norm",
    "[model.]decoder.layers.{}.self_attn.q_proj": "body.blocks.{}.attn.q",
    "[model.]decoder.layers.{}.self_attn.k_proj": "body.blocks.{}.attn.k",
    "[model.]decoder.layers.{}.self_attn.v_proj": "body.blocks.{}.attn.v",
    "[model.]decoder.layers.{}.self_attn.out_proj": "body.blocks.{}.attn.out",
    "[model.]decoder.layers.{}.final_layer_norm": "body.blocks.{}.mlp_norm",
    "[model.]decoder.layers.{}.fc1": "body.blocks.{}.mlp.up",
    "[model.]decoder.layers.{}.fc2": "body.blocks.{}.mlp.down",
    "[model.]decoder.final_layer_norm": "body.norm",
    "lm_head": "head",
}

MPT: Names = {
    "[transformer.]wte": "embed.vectors",
    "[transformer.]blocks.{}.norm_1": "body.blocks.{}.attn_norm",
    "[transformer.]blocks.{}.attn.Wqkv": qkv("body.blocks.{{}}.attn.{}"),
    "[transformer.]blocks.{}.attn.out_proj": "body.blocks.{}.attn.out",
    "[transformer.]blocks.{}.norm_2": "body.blocks.{}.mlp_norm",
    "[transformer.]blocks.{}.ffn.up_proj": "body.blocks.{}.mlp.up",
    "[transformer.]blocks.{}.ffn.down_proj": "body.blocks.{}.mlp.down",
    "[transformer.]norm_f": "body.norm",
    "lm_head": "head",
}


def gpt_neox(heads: int) -> Names:
    """Queries, keys and values are published head by head."""
    return {
        "gpt_neox.embed_in": "embed.vectors",
        "gpt_neox.layers.{}.input_layernorm": "body.blocks.{}.attn_norm",
        "gpt_neox.layers.{}.attention.query_key_value": replace(qkv("body.blocks.{{}}.attn.{}"), groups=heads),
        "gpt_neox.layers.{}.attention.dense": "body.blocks.{}.attn.out",
        "gpt_neox.layers.{}.attention.bias": SPARE,
        "gpt_neox.layers.{}.attention.masked_bias": SPARE,
        "gpt_neox.layers.{}.attention.rotary_emb.inv_freq": SPARE,
        "gpt_neox.layers.{}.post_attention_layernorm": "body.blocks.{}.mlp_norm",
        "gpt_neox.layers.{}.mlp.dense_h_to_4h": "body.blocks.{}.mlp.up",
        "gpt_neox.layers.{}.mlp.dense_4h_to_h": "body.blocks.{}.mlp.down",
        "gpt_neox.final_layer_norm": "body.norm",
        "embed_out": "head",
    }


BERT: Names = {
    "[bert.]embeddings.word_embeddings": "embed.vectors",
    "[bert.]embeddings.position_embeddings": "embed.positions",
    "[bert.]embeddings.token_type_embeddings": "embed.segments",
    "[bert.]embeddings.position_ids": SPARE,
    "[bert.]embeddings.LayerNorm": "embed.norm",
    "[bert.]encoder.layer.{}.attention.self.query": "body.blocks.{}.attn.q",
    "[bert.]encoder.layer.{}.attention.self.key": "body.blocks.{}.attn.k",
    "[bert.]encoder.layer.{}.attention.self.value": "body.blocks.{}.attn.v",
    "[bert.]encoder.layer.{}.attention.output.dense": "body.blocks.{}.attn.out",
    "[bert.]encoder.layer.{}.attention.output.LayerNorm": "body.blocks.{}.attn_norm",
    "[bert.]encoder.layer.{}.intermediate.dense": "body.blocks.{}.mlp.up",
    "[bert.]encoder.layer.{}.output.dense": "body.blocks.{}.mlp.down",
    "[bert.]encoder.layer.{}.output.LayerNorm": "body.blocks.{}.mlp_norm",
    "[bert.]pooler.dense": SPARE,
    "cls.predictions": SPARE,
    "cls.predictions.transform.dense": SPARE,
    "cls.predictions.transform.LayerNorm": SPARE,
    "cls.predictions.decoder": SPARE,
    "cls.seq_relationship": SPARE,
}

_TOWER: Names = {  # the blocks of CLIP and SigLIP, either tower
    "encoder.layers.{}.layer_norm1": "body.blocks.{}.attn_norm",
    "encoder.layers.{}.self_attn.q_proj": "body.blocks.{}.attn.q",
    "encoder.layers.{}.self_attn.k_proj": "body.blocks.{}.attn.k",
    "encoder.layers.{}.self_attn.v_proj": "body.blocks.{}.attn.v",
    "encoder.layers.{}.self_attn.out_proj": "body.blocks.{}.attn.out",
    "encoder.layers.{}.layer_norm2": "body.blocks.{}.mlp_norm",
    "encoder.layers.{}.mlp.fc1": "body.blocks.{}.mlp.up",
    "encoder.layers.{}.mlp.fc2": "body.blocks.{}.mlp.down",
    "embeddings.position_ids": SPARE,
}


def under(prefix: str, names: Names, ours: str = "") -> Names:
    """The same table for a part of a larger checkpoint: `prefix` before theirs, `ours` before ours."""

    def move(to: str | To) -> str | To:
        if isinstance(to, str):
            return ours + to
        return replace(to, names=tuple(ours + name for name in to.names))

    return {prefix + theirs: move(to) for theirs, to in names.items()}


CLIP_IMAGE: Names = under(
    "[vision_model.]",
    {
        **_TOWER,
        "embeddings.class_embedding": "embed.class_token",
        "embeddings.patch_embedding": "embed.project",
        "embeddings.position_embedding.weight": "embed.positions",
        "pre_layrnorm": "embed.norm",
        "post_layernorm": "pool.norm",
    },
)

CLIP_TEXT: Names = under(
    "[text_model.]",
    {
        **_TOWER,
        "embeddings.token_embedding": "embed.vectors",
        "embeddings.position_embedding": "embed.positions",
        "final_layer_norm": "body.norm",
    },
)

SIGLIP_IMAGE: Names = under(
    "[vision_model.]",
    {
        **_TOWER,
        "embeddings.patch_embedding": "embed.project",
        "embeddings.position_embedding.weight": "embed.positions",
        "post_layernorm": "body.norm",
        "head.probe": To(("pool.query",), ones=2),
        "head.attention.in_proj_weight": qkv("pool.attn.{}.weight"),
        "head.attention.in_proj_bias": qkv("pool.attn.{}.bias"),
        "head.attention.out_proj": "pool.attn.out",
        "head.layernorm": "pool.norm",
        "head.mlp.fc1": "pool.mlp.up",
        "head.mlp.fc2": "pool.mlp.down",
    },
)

SIGLIP_TEXT: Names = {**CLIP_TEXT, "[text_model.]head": "head"}

_VIT: Names = {  # ViT and DINOv2
    "embeddings.cls_token": To(("embed.class_token",), ones=2),
    "embeddings.mask_token": SPARE,
    "embeddings.patch_embeddings.projection": "embed.project",
    "embeddings.position_embeddings": To(("embed.positions",), ones=1),
    "encoder.layer.{}.attention.attention.query": "body.blocks.{}.attn.q",
    "encoder.layer.{}.attention.attention.key": "body.blocks.{}.attn.k",
    "encoder.layer.{}.attention.attention.value": "body.blocks.{}.attn.v",
    "encoder.layer.{}.attention.output.dense": "body.blocks.{}.attn.out",
    "layernorm": "body.norm",
}

VIT: Names = under(
    "[vit.]",
    {
        **_VIT,
        "encoder.layer.{}.layernorm_before": "body.blocks.{}.attn_norm",
        "encoder.layer.{}.layernorm_after": "body.blocks.{}.mlp_norm",
        "encoder.layer.{}.intermediate.dense": "body.blocks.{}.mlp.up",
        "encoder.layer.{}.output.dense": "body.blocks.{}.mlp.down",
        "pooler.dense": SPARE,
    },
)

DINOV2: Names = under(
    "[dinov2.]",
    {
        **_VIT,
        "encoder.layer.{}.norm1": "body.blocks.{}.attn_norm",
        "encoder.layer.{}.norm2": "body.blocks.{}.mlp_norm",
        "encoder.layer.{}.layer_scale1.lambda1": "body.blocks.{}.attn_scale",
        "encoder.layer.{}.layer_scale2.lambda1": "body.blocks.{}.mlp_scale",
        "encoder.layer.{}.mlp.fc1": "body.blocks.{}.mlp.up",
        "encoder.layer.{}.mlp.fc2": "body.blocks.{}.mlp.down",
    },
)

DINOV2_GATED: Names = {  # DINOv2-giant's SwiGLU, gate and up in one matrix
    **{theirs: to for theirs, to in DINOV2.items() if ".mlp.fc" not in theirs},
    "[dinov2.]encoder.layer.{}.mlp.weights_in": To(("body.blocks.{}.mlp.gate", "body.blocks.{}.mlp.up")),
    "[dinov2.]encoder.layer.{}.mlp.weights_out": "body.blocks.{}.mlp.down",
}


def settle(names: Names, published: Iterable[str] | None = None) -> Names:
    """The table with every `[prefix.]` decided: kept if a published name starts so, else dropped.
    Without published names, as for a new model, all are kept."""
    published = None if published is None else list(published)
    settled: dict[str, str | To] = {}
    decided: dict[str, str] = {}
    for template, to in names.items():
        theirs = template
        while "[" in theirs:
            before, _, rest = theirs.partition("[")
            prefix, _, after = rest.partition("]")
            start = before + prefix
            if start not in decided:
                kept = published is None or any(name.startswith(start) for name in published)
                decided[start] = prefix if kept else ""
            theirs = before + decided[start] + after
        settled[theirs] = to
    return settled


def to_ours(name: str, names: Names) -> To | None:
    """Where a published tensor goes, by a settled table; None if the table does not know it."""
    for path, numbers in _numbers_out(name):
        if path in names:
            return _numbers_in(names[path], numbers)
        module, _, leaf = path.rpartition(".")
        if module in names:
            leaf = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)  # as the oldest BERT files call them
            to = _numbers_in(names[module], numbers)
            turned = to.transposed and leaf == "weight"
            return replace(to, names=tuple(f"{ours}.{leaf}" for ours in to.names), transposed=turned)
    return None


def to_theirs(ours: Iterable[str], names: Names) -> dict[str, To]:
    """The published tensors that our tensors make up, by a settled table.

    One of ours may be written under several names, as what two published parts share. Raises KeyError
    for a tensor of ours that the table does not place.
    """
    inverse: dict[str, list[str]] = {}
    for theirs, to in names.items():
        for our_path in (to,) if isinstance(to, str) else to.names:
            inverse.setdefault(our_path, []).append(theirs)
    found: dict[str, To] = {}
    for place in (place for name in ours for place in _places(name, inverse)):
        whole = to_ours(place, names)
        assert whole is not None
        found[place] = whole
    return found


def _places(ours: str, inverse: Mapping[str, list[str]]) -> list[str]:
    """The published names of one of our tensors, by those of its path or of its module"""
    for path, numbers in _numbers_out(ours):
        module, _, leaf = path.rpartition(".")
        if places := inverse.get(path) or [f"{theirs}.{leaf}" for theirs in inverse.get(module, ())]:
            return [place.format(*numbers) for place in places]
    raise KeyError(ours)


def _numbers_out(name: str) -> Iterator[tuple[str, list[str]]]:
    """`blocks.3.1.norm` -> `blocks.{}.{}.norm`, [3, 1]; then with some of the numbers left as they are, since a
    template may hold a number itself"""
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part.isdigit()]
    for kept in product((False, True), repeat=len(places)):
        out = [i for i, keep in zip(places, kept, strict=True) if not keep]
        yield ".".join("{}" if i in out else part for i, part in enumerate(parts)), [parts[i] for i in out]


def _numbers_in(to: str | To, numbers: list[str]) -> To:
    if isinstance(to, str):
        to = To((to,))
    return replace(to, names=tuple(name.format(*numbers) for name in to.names))
