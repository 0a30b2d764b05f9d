"""One transformer for every tower: image, text and audio encoders, and language models.

Shape legend, used throughout the library:
    B batch   T new tokens   S all tokens, those in the cache included   D model width
    H heads   K key/value heads   E head width
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Cache, Slot, Source
from panmodal.embeddings import Angles, PatchEmbedding, Rope, SignalEmbedding, angles, rotate
from panmodal.visibility import Mask, alibi, attention_mask, positions

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}
NORMS: dict[str, Callable[..., nn.Module]] = {
    "layer": nn.LayerNorm,
    "layer_no_bias": partial(nn.LayerNorm, bias=False),
    "rms": nn.RMSNorm,
}


@dataclass(frozen=True)
class TransformerConfig:
    """The switches in which the published transformers differ."""

    dim: int
    depth: int
    heads: int
    kv_heads: int | None = None  # None: one per query head; fewer: grouped-query attention
    head_dim: int | None = None  # None: dim / heads
    mlp_dim: int | None = None  # None: 4 * dim
    activation: str = "gelu"
    gated: bool = False  # a gate times the activation, as in SwiGLU
    norm: Literal["layer", "layer_no_bias", "rms"] = "layer"
    norm_eps: float = 1e-6
    pre_norm: bool = True  # False: normalise after each residual sum, as BERT does
    final_norm: bool = True
    qkv_bias: bool = True
    bias: bool = True  # of the attention's output and the MLP
    qk_norm: bool = False
    causal: bool = False
    rope: Rope | None = None
    alibi: float | None = None  # the steepness of its slopes; 8 as published
    window: int | None = None  # a token sees this many tokens, itself included

    @property
    def head_width(self) -> int:
        return self.head_dim or self.dim // self.heads

    def make_norm(self, dim: int | None = None) -> nn.Module:
        return NORMS[self.norm](dim or self.dim, eps=self.norm_eps)


class Attention(nn.Module):
    """Multi-head attention over `x` itself or, where one is given, over a source of other width."""

    def __init__(self, config: TransformerConfig, source_dim: int | None = None) -> None:
        super().__init__()
        self.head_dim = config.head_width
        inner, kv_inner = config.heads * self.head_dim, (config.kv_heads or config.heads) * self.head_dim
        self.grouped = kv_inner < inner
        self.q = nn.Linear(config.dim, inner, bias=config.qkv_bias)
        self.k = nn.Linear(source_dim or config.dim, kv_inner, bias=config.qkv_bias)
        self.v = nn.Linear(source_dim or config.dim, kv_inner, bias=config.qkv_bias)
        self.out = nn.Linear(inner, config.dim, bias=config.bias)
        self.q_norm = config.make_norm(self.head_dim) if config.qk_norm else nn.Identity()
        self.k_norm = config.make_norm(self.head_dim) if config.qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,  # [B, T, D]
        source: Source | None = None,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
    ) -> Tensor:
        q = self.q_norm(self.q(x).unflatten(-1, (-1, self.head_dim))).transpose(1, 2)  # [B, H, T, E]
        if source is not None:
            mask = source.mask_for(x.shape[1])
            if source.glance(self, x.shape[1]):
                return self.glance(q, source.vectors, mask)
        k, v = self.keys_values(x) if source is None else source.seen_by(self)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        if slot is not None:
            k, v = slot.extend(k, v)
        attended = self.attend(q, k, v, mask).transpose(1, 2).flatten(2)  # [B, T, H * E]
        out: Tensor = self.out(attended.to(x.dtype))
        return out

    def glance(self, q: Tensor, vectors: Tensor, mask: Mask) -> Tensor:
        """What one token sees, its query [B, H, 1, E], of a source [B, S, D] of which no keys and values are made:
        the query is brought to the vectors, and what it finds there to a value, for q (W s) is (q W) s
        (DeepSeek-V2, 2024, section 2.1.2). Biases of keys, alike for all of them, change nothing. -> [B, 1, D]"""
        k, v = (linear.weight.view(-1, self.head_dim, vectors.shape[-1]) for linear in (self.k, self.v))  # [H, E, D]
        asked = torch.einsum("bhte,hed->bthd", q, k) * math.sqrt(vectors.shape[-1] / self.head_dim)
        found = self.attend(asked, vectors[:, None], vectors[:, None], mask)  # [B, 1, H, D]
        values = torch.einsum("bthd,hed->bthe", found.to(q.dtype), v).flatten(2)
        out: Tensor = self.out(values if self.v.bias is None else values + self.v.bias)
        return out

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] -> [B, K, S, E] each"""
        k = self.k_norm(self.k(x).unflatten(-1, (-1, self.head_dim))).transpose(1, 2)
        return k, self.v(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        if isinstance(mask, list):  # each text of a row by itself
            return torch.cat([self.attend(q[:, :, s], k[:, :, s], v[:, :, s], own) for s, own in mask], dim=2)
        where = mask if isinstance(mask, Tensor) else None
        attention = partial(F.scaled_dot_product_attention, is_causal=isinstance(mask, str), enable_gqa=self.grouped)
        if q.device.type == "cpu":  # whose bfloat16 attention is several times slower than its float32
            with torch.autocast("cpu", enabled=False):
                return attention(q.float(), k.float(), v.float(), attn_mask=where)
        if where is not None and where.is_floating_point():
            where = where.to(q.dtype)
        return attention(q, k, v, attn_mask=where)


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = config.mlp_dim or 4 * config.dim
        self.up = nn.Linear(config.dim, hidden, bias=config.bias)
        self.gate = nn.Linear(config.dim, hidden, bias=config.bias) if config.gated else None
        self.down = nn.Linear(hidden, config.dim, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        out: Tensor = self.down(hidden)
        return out


class Block(nn.Module):
    """Attention, then an MLP, each with a residual; `layer` is its number from 0."""

    attention: type[Attention] = Attention

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attn, self.attn_norm = self.attention(config), config.make_norm()
        self.mlp, self.mlp_norm = MLP(config), config.make_norm()

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,  # for blocks that look at one
    ) -> Tensor:
        x = self.residual(x, self.attn_norm, partial(self.attn, mask=mask, rope=rope, slot=slot))
        return self.after_attention(x, source)

    def first(self, x: Tensor) -> Tensor:
        """What the first token becomes, which sees all. [B, T, D] -> [B, 1, D]"""
        source = Source(self.attn_norm(x) if self.pre_norm else x)
        return self.after_attention(self.residual(x[:, :1], self.attn_norm, partial(self.attn, source=source)), None)

    def after_attention(self, x: Tensor, source: Source | None) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        return self.residual(x, self.mlp_norm, self.mlp)

    def residual(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        out: Tensor = x + layer(norm(x)) if self.pre_norm else norm(x + layer(x))
        return out


class CrossBlock(Block):
    """A block that, between the two, looks at a source, if there is one (Vaswani et al., 2017)."""

    def __init__(self, config: TransformerConfig, layer: int = 0, source_dim: int | None = None) -> None:
        super().__init__(config, layer)
        self.cross, self.cross_norm = self.attention(config, source_dim), config.make_norm()

    def after_attention(self, x: Tensor, source: Source | None) -> Tensor:
        if source is not None:
            x = self.residual(x, self.cross_norm, partial(self.cross, source=source))
        return super().after_attention(x, source)


MakeBlock = Callable[[TransformerConfig, int], Block]


class Transformer(nn.Module):
    """A stack of blocks and a final norm; `block` may be a subclass that one family needs."""

    def __init__(self, config: TransformerConfig, block: MakeBlock = Block) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(block(config, layer) for layer in range(config.depth))
        self.norm = config.make_norm() if config.final_norm else nn.Identity()

    def forward(
        self, x: Tensor, pad: Tensor | None = None, cache: Cache | None = None, source: Source | None = None
    ) -> Tensor:
        """x [B, T, D] -> [B, T, D]. `pad` [B, S] is True where a token, cached or new, is real, or, without
        a cache, numbers texts packed apart (`visible`). `source` is what blocks with cross-attention look at."""
        past, tokens = (cache.length if cache is not None else 0), x.shape[1]
        if cache is not None:
            cache.reserve(tokens)
        at = positions(past + tokens, pad, x.device)
        mask = self.mask(tokens, past, pad, at)
        rope = self.config.rope and angles(self.config.rope, self.config.head_width, at[:, past:], x.dtype)
        for i, block in enumerate(self.blocks):
            x = block(x, mask, rope, cache.slot(i) if cache is not None else None, source)
        if cache is not None:
            cache.length += tokens
        out: Tensor = self.norm(x)
        return out

    def mask(self, tokens: int, past: int, pad: Tensor | None, at: Tensor) -> Mask:
        """Where the new of the tokens, which stand at the positions `at` [B, S], may look"""
        c = self.config
        mask = attention_mask(c.causal, c.window, tokens, past, pad, at.device, split=c.alibi is None)
        return mask if c.alibi is None else alibi(mask, at, c.heads, c.alibi, tokens)


def initialise(module: nn.Module, std: float | None = None) -> None:
    """Fresh weights: normal, by default of variance 1 / fan-in, so that narrow models start no quieter
    than wide ones (LeCun et al., 1998); those that end a residual branch smaller by depth, as GPT-2's. The
    positions of patches begin as `waves`."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1 or "class_token" in name or "query" in name:
            nn.init.normal_(parameter, std=std or math.prod(parameter.shape[1:] or parameter.shape) ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    for part in module.modules():
        if isinstance(part, PatchEmbedding | SignalEmbedding):
            part.begin()
        if isinstance(part, Transformer):
            for name, parameter in part.blocks.named_parameters():
                if name.endswith(("attn.out.weight", "mlp.down.weight")):
                    parameter.data.div_(math.sqrt(2 * part.config.depth))
