"""What turns raw input into the [B, T, D] tokens that a transformer reads, and where they stand.

The shape legend is that of `transformer`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.visibility import positions

Angles = tuple[Tensor, Tensor]  # cosines and sines, [B, 1, T, E]


class TokenEmbedding(nn.Module):
    """Words, with learned positions and BERT's segments where a format has them.

    `offset` is where the positions start in their table (OPT: 2); `word_dim` is the width of the
    words where it is not the model's, a linear map then widening them (OPT-350m).
    """

    def __init__(
        self,
        vocab: int,
        dim: int,
        positions: int = 0,
        segments: int = 0,
        norm: nn.Module | None = None,
        offset: int = 0,
        word_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.vectors = nn.Embedding(vocab, word_dim or dim)
        self.widen = nn.Linear(word_dim, dim, bias=False) if word_dim not in (None, dim) else nn.Identity()
        self.positions = nn.Embedding(positions + offset, dim) if positions else None
        self.segments = nn.Embedding(segments, dim) if segments else None
        self.norm = norm or nn.Identity()
        self.offset = offset

    def forward(self, ids: Tensor, pad: Tensor | None = None, past: int = 0) -> Tensor:
        """ids [B, T] -> [B, T, D]"""
        return self.place(self.words(ids), pad, past)

    def words(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, D], without positions"""
        out: Tensor = self.widen(self.vectors(ids))
        return out

    def place(self, x: Tensor, pad: Tensor | None = None, past: int = 0) -> Tensor:
        """Adds positions to word vectors; images spliced among the words are placed like words."""
        if self.positions is not None:
            at = positions(past + x.shape[1], pad, x.device)[:, past:]
            x = x + self.positions(at + self.offset)
        if self.segments is not None:
            x = x + self.segments.weight[0]
        out: Tensor = self.norm(x)
        return out


class PatchEmbedding(nn.Module):
    """Square patches of an image, a class token before them, and learned positions.

    Pictures of another size than the positions were learned for are served by interpolating them
    (bicubic, as DINOv2's publishers do).
    """

    def __init__(
        self,
        dim: int,
        image_size: int,
        patch: int,
        channels: int = 3,
        class_token: bool = True,
        bias: bool = True,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, dim, patch, patch, bias=bias)
        self.class_token = nn.Parameter(torch.zeros(dim)) if class_token else None
        self.grid = image_size // patch
        self.positions = nn.Parameter(torch.zeros(self.grid**2 + class_token, dim))
        self.norm = norm or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """images [B, channels, height, width] -> [B, T, D], T = patches (+ 1)"""
        patches = self.project(images)  # [B, D, rows, columns]
        rows, columns = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        out: Tensor = self.norm(x + self.positions_for(rows, columns))
        return out

    def begin(self) -> None:
        """Positions that a new model can tell apart."""
        self.positions.data.flatten(0, -2)[-(self.grid**2) :] = waves(self.grid, self.grid, self.positions.shape[-1])

    def positions_for(self, rows: int, columns: int) -> Tensor:
        if (rows, columns) == (self.grid, self.grid):
            return self.positions
        first, grid = self.positions[: -(self.grid**2)], self.positions[-(self.grid**2) :]
        square = grid.float().T.reshape(1, -1, self.grid, self.grid)  # [1, D, grid, grid]
        resized = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([first, resized[0].flatten(1).T.to(first.dtype)])


class SignalEmbedding(nn.Module):
    """Patches of a signal of one shape (a spectrogram, a short clip, a depth map, motion): each projected and
    normed, a class token before them, and learned positions.

    `project` makes [B, D, rows, columns] of a signal, or what flattens to it.
    """

    def __init__(
        self,
        project: nn.Module,
        grid: tuple[int, int],
        dim: int,
        patch_norm: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.project, self.patch_norm = project, patch_norm or nn.Identity()
        self.class_token = nn.Parameter(torch.zeros(dim))
        self.grid = grid
        self.positions = nn.Parameter(torch.zeros(1 + grid[0] * grid[1], dim))
        self.norm = norm or nn.Identity()

    def forward(self, signals: Tensor) -> Tensor:
        """signals [B, ...] -> [B, T, D], T = 1 + patches"""
        x = self.patch_norm(self.project(signals).flatten(2).transpose(1, 2))
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        out: Tensor = self.norm(x + self.positions)
        return out

    def begin(self) -> None:
        """Positions that a new model can tell apart."""
        self.positions.data[1:] = waves(*self.grid, self.positions.shape[1])


def waves(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of each patch's row and column, [rows * columns, D], as MAE's positions (He et al., 2021),
    of wavelengths from 2 pi to 200 pi patches: learned positions that begin small, a small model may never
    hear beside the patches."""
    turns = torch.arange(max(rows, columns))[:, None] * 100.0 ** -torch.linspace(0, 1, -(-dim // 4))
    line = torch.cat([turns.sin(), turns.cos()], dim=1)
    down, across = line[:rows, None].expand(-1, columns, -1), line[:columns].expand(rows, -1, -1)
    return torch.cat([down, across], dim=-1).flatten(0, 1)[:, :dim]


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al., 2021). `factor` stretches them: all frequencies alike, or, with
    the three fields below it, only the low ones, as Llama 3.1 does. `share` of a head's width is turned."""

    theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float | None = None
    high_freq_factor: float = 4.0
    original_context: int = 8192
    share: float = 1.0


@lru_cache(maxsize=64)
def frequencies(rope: Rope, width: int) -> tuple[float, ...]:
    plain = 1.0 / rope.theta ** (torch.arange(0, width, 2).float() / width)
    if rope.low_freq_factor is None:
        return tuple((plain / rope.factor).tolist())
    turns = rope.original_context * plain / (2 * math.pi)  # of each pair, over the original context
    share = ((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)).clamp(0, 1)
    return tuple(((1 - share) * plain / rope.factor + share * plain).tolist())


def angles(rope: Rope, width: int, at: Tensor, dtype: torch.dtype) -> Angles:
    """at [B, T] -> cosines and sines [B, 1, T, share of E], in the half-split layout of published checkpoints."""
    turned = at[:, None, :, None].float() * torch.tensor(frequencies(rope, int(rope.share * width)), device=at.device)
    turned = torch.cat([turned, turned], dim=-1)
    return turned.cos().to(dtype), turned.sin().to(dtype)


def rotate(x: Tensor, rope: Angles) -> Tensor:
    cos, sin = rope
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat([rotate(x[..., :width], rope), x[..., width:]], dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin
