"""Where tokens may look, and at which position each stands."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

Seen = Tensor | Literal["causal"]  # True where attention is allowed, or what is added to scores
Mask = Seen | list[tuple[slice, Seen]] | None  # in each stretch of a row, where it may look in itself; None: everywhere
CONVERSATION = 2**16  # between the numbers of two conversations in one row; see `visible`


def positions(total: int, pad: Tensor | None, device: torch.device) -> Tensor:
    """Position of every token, cached or new, [B, S], or [1, S] if all rows agree; padding does not count."""
    if pad is None:
        return torch.arange(total, device=device)[None]
    if pad.dtype != torch.bool:
        return visible(pad).sum(dim=-1) - 1
    return (pad.cumsum(dim=-1) - 1).clamp(min=0)


def visible(pad: Tensor) -> Tensor:
    """Which tokens may look at which, [B, T, T], where texts are packed apart: `pad` [B, T] is 0 for
    padding, 1 for what all of a conversation see, and from 2 on the number of a turn that the others do not;
    that of the n-th conversation in a row, from 0, is larger by n * CONVERSATION, and none sees another.
    A token's position is the number of those before it that it sees."""
    conversation, shared = pad // CONVERSATION, pad % CONVERSATION == 1
    alike = conversation[:, None] == conversation[..., None]
    seen = (pad[:, None] == pad[..., None]) | (alike & shared[:, None])
    itself = torch.eye(pad.shape[1], dtype=torch.bool, device=pad.device)  # else a padded row sees nothing
    return seen.tril() & (pad > 0)[:, None] | itself


def apart(pad: Tensor) -> list[tuple[slice, Tensor | Literal["causal"]]]:
    """Of texts packed apart in one row [1, T], without padding: where each stands, and where in itself it may look"""
    _, sizes = (pad[0] // CONVERSATION).unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    out: list[tuple[slice, Tensor | Literal["causal"]]] = []
    for size, end in zip(sizes.tolist(), accumulate(sizes.tolist()), strict=True):
        own = pad[:, end - size : end]
        out.append((slice(end - size, end), "causal" if bool((own == own[:, :1]).all()) else visible(own)[:, None]))
    return out


def alibi(mask: Mask, at: Tensor, heads: int, steepness: float, tokens: int) -> Tensor:
    """What is added to the scores of attention for the distance between two tokens (ALiBi, Press et al., 2021), in each
    head by another slope, of 2^n heads from near 1 to 2^-steepness; minus infinity where `mask` does not allow it.

    at [B, S] are the positions of all tokens, of which the last `tokens` are new -> [B, H, T, S] float32
    """
    power = 2 ** math.ceil(math.log2(heads))
    slopes = [2 ** (-steepness * i / power) for i in range(1, power + 1)]
    slopes = slopes if power == heads else [*slopes[1::2], *slopes[::2]][:heads]
    away = at[:, None, None] - at[:, None, -tokens:, None]  # [B, 1, T, S], negative for those before
    bias = away * torch.tensor(slopes, device=at.device)[:, None, None]
    if isinstance(mask, str):
        mask = torch.ones(bias.shape[-2:], dtype=torch.bool, device=at.device).tril(at.shape[1] - tokens)
    return bias.masked_fill(~mask, -torch.inf) if isinstance(mask, Tensor) else bias
