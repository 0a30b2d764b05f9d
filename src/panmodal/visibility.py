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


def attention_mask(
    causal: bool, window: int | None, tokens: int, past: int, pad: Tensor | None, device: torch.device, split: bool
) -> Mask:
    """Where the new tokens may look, [T, S] or [B, 1, T, S]; no tensor where none is needed. Texts that are packed
    apart may come `split`, where nothing is added to scores."""
    total = past + tokens
    window = window if window is not None and total > window else None
    if pad is None and window is None and (tokens == 1 or past == 0 or not causal):
        return "causal" if causal and tokens > 1 else None
    if not causal:
        return None if pad is None else pad[:, None, None].bool()
    allowed = torch.ones(tokens, total, dtype=torch.bool, device=device).tril(past).triu(past + 1 - (window or total))
    if pad is None:
        return allowed
    if pad.dtype != torch.bool:
        plain = split and window is None and device.type == "cpu" and len(pad) == 1 and bool(pad.all())
        return apart(pad) if plain else (allowed & visible(pad))[:, None]
    itself = torch.eye(total, dtype=torch.bool, device=device)[past:]  # else a padded row sees nothing
    return (allowed & pad[:, None, None].bool()) | itself


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
    return masked(away(at, tokens)[:, None] * torch.tensor(slopes, device=at.device)[:, None, None], mask)


def away(at: Tensor, tokens: int) -> Tensor:
    """Positions of all tokens [B, S], of which the last are new -> how far after each new one each of all stands,
    [B, T, S], negative for those before it"""
    return at[:, None] - at[:, -tokens:, None]


def masked(bias: Tensor, mask: Mask) -> Tensor:
    """What is added to scores, [B, H, T, S], minus infinity where `mask` does not allow them"""
    if isinstance(mask, str):
        tokens, total = bias.shape[-2:]
        mask = torch.ones(tokens, total, dtype=torch.bool, device=bias.device).tril(total - tokens)
    return bias.masked_fill(~mask, -torch.inf) if isinstance(mask, Tensor) else bias
