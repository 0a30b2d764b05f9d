"""What attention keeps between calls: the keys and values of tokens, and of a source beside them.

The shape legend is that of `transformer`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.transformer import Attention, TransformerConfig


class Slot(NamedTuple):
    """One block's part of a cache: keys and values [B, K, size, E], `length` of them in use."""

    keys: Tensor
    values: Tensor
    length: int

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        return self.keys[:, :, :end], self.values[:, :, :end]


class Cache:
    """Keys and values of the tokens seen so far, in memory set aside for `size` tokens."""

    def __init__(self, config: TransformerConfig, batch: int, size: int, like: Tensor) -> None:
        shape = (batch, config.kv_heads or config.heads, size, config.head_width)
        self.keys = [like.new_empty(shape) for _ in range(config.depth)]
        self.values = [like.new_empty(shape) for _ in range(config.depth)]
        self.size, self.length = size, 0

    def slot(self, layer: int) -> Slot:
        return Slot(self.keys[layer], self.values[layer], self.length)

    def reserve(self, tokens: int) -> None:
        """Raises InputError if that many more tokens do not fit."""
        if self.length + tokens > self.size:
            raise InputError(
                f"the cache has room for {self.size} tokens, {self.length} are used and {tokens} more came"
            )

    def select(self, rows: Tensor) -> None:
        """Keeps the given rows of the batch, in their order; a row may come several times."""
        self.keys = [k.index_select(0, rows) for k in self.keys]
        self.values = [v.index_select(0, rows) for v in self.values]

    def resize(self, size: int, length: int) -> None:
        """Makes room for `size` tokens and forgets all but the first `length`."""
        if size > self.size:
            grown = [
                [F.pad(t[:, :, :length], (0, 0, 0, size - length)) for t in tensors]
                for tensors in (self.keys, self.values)
            ]
            self.keys, self.values = grown
            self.size = size
        self.length = length


class Source:
    """What cross-attention looks at beside the tokens: vectors [B, S, D], such as those of a picture.

    Every attention's keys and values of them are made once, so that further tokens cost no more of them, and not
    before it is worth it (`glance`). `mask` [B, 1, 1 or T, S] is True where a token may look; fewer tokens than it
    has rows for are the last ones.
    """

    def __init__(self, vectors: Tensor, mask: Tensor | None = None) -> None:
        self.vectors, self.mask = vectors, mask
        self._made: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._glances: Counter[nn.Module] = Counter()

    def glance(self, attention: Attention, tokens: int) -> bool:
        """Whether so many tokens look without keys and values (`Attention.glance`). Tokens that look one by one may,
        until there were as many as a head is wide: by then, keys and values would have cost less."""
        plain = not attention.grouped and isinstance(attention.k_norm, nn.Identity)
        if tokens > 1 or attention in self._made or not plain or torch.is_grad_enabled():
            return False
        self._glances[attention] += 1
        return self._glances[attention] <= attention.head_dim < self.vectors.shape[1]

    def seen_by(self, attention: Attention) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, S, E]"""
        if attention not in self._made:
            k, v = attention.keys_values(self.vectors)
            self._made[attention] = k.contiguous(), v.contiguous()  # for they are read again for every token
        return self._made[attention]

    def mask_for(self, tokens: int) -> Tensor | None:
        return None if self.mask is None else self.mask[:, :, -tokens:]

    def select(self, rows: Tensor) -> None:
        """Keeps the given rows of the batch, in their order; a row may come several times."""
        self.vectors = self.vectors[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self._made = {attention: (k[rows], v[rows]) for attention, (k, v) in self._made.items()}
