"""The vectors of a picture and its tiles, or of a video's frames, in the order in which a language model reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.data.tiles import Size, Tiling


class Tiles(nn.Module):
    """The whole picture first, then all tiles as one, row by row, a learned vector after each row."""

    def __init__(self, dim: int, tiling: Tiling) -> None:
        super().__init__()
        self.tiling, self.newline = tiling, nn.Parameter(torch.zeros(dim))

    def forward(self, vectors: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Vectors [tiles of all pictures, side^2, D] and the size by which each picture was cut -> [V, D]"""
        plans = [self.tiling.plan(size) for size in sizes]
        parts = torch.split(vectors, [1 + p.tiles[0] * p.tiles[1] for p in plans])
        return torch.cat([self._one(part, *plan) for part, plan in zip(parts, plans, strict=True)])

    def video(self, vectors: Tensor) -> Tensor:
        """Vectors [videos, frames, side^2, D] -> [videos, V, D]: each frame shrunk to half the side, rounded up, and
        the learned vector at the end of all."""
        side, half = self.tiling.side, math.ceil(self.tiling.side / 2)
        x = vectors.flatten(0, 1).transpose(1, 2)
        x = x.view(len(x), -1, side, side)  # [all frames, D, side, side]
        x = F.interpolate(x, (half, half), mode="bilinear").flatten(2).transpose(1, 2)
        x = x.reshape(len(vectors), -1, x.shape[-1])  # [videos, frames * half^2, D]
        return torch.cat([x, self.newline.to(x).expand(len(x), 1, -1)], dim=1)

    def _one(self, vectors: Tensor, tiles: Size, kept: Size, grid: Size) -> Tensor:
        if tiles == (0, 0):
            return torch.cat([vectors[0], self.newline[None].to(vectors)])
        side = self.tiling.side
        x = vectors[1:].view(*tiles, side, side, -1)  # [rows, columns, side, side, D]
        x = x.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)  # [D, rows * side, columns * side]
        top, left = (x.shape[1] - kept[0]) // 2, (x.shape[2] - kept[1]) // 2
        x = x[:, top : top + kept[0], left : left + kept[1]]
        if grid != kept:
            x = F.interpolate(x[None], grid, mode="bilinear")[0]
        x = torch.cat([x, self.newline[:, None, None].to(x).expand(-1, grid[0], 1)], dim=2)
        return torch.cat([vectors[0], x.flatten(1).T])
