"""SAM 2's image encoder: Hiera (Ryali et al., 2023), whose stages are each half as fine as the one before, and a
pyramid of features over them (Ravi et al., 2024).

Shape legend, besides those of `transformer` and `encoders.grid`:
    N windows of all pictures
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Slot, Source
from panmodal.embeddings import Angles
from panmodal.transformer import Attention, Block, Transformer, TransformerConfig
from panmodal.visibility import Mask


class HieraEncoder(nn.Module):
    """Stages of transformers over a grid. Stage i attends within windows of the side `windows[i]`; all but the first
    begin with a block that halves the grid and still has the windows of the stage before. Blocks in `global_blocks`,
    counted through all stages, attend over the whole grid."""

    def __init__(
        self,
        embed: HieraEmbedding,
        stages: Sequence[TransformerConfig],
        windows: Sequence[int],
        global_blocks: Collection[int],
        neck: Pyramid,
    ) -> None:
        super().__init__()
        self.embed, self.neck, self.stages = embed, neck, nn.ModuleList()
        for number, config in enumerate(stages):
            first = sum(stage.depth for stage in stages[:number])

            def block(config: TransformerConfig, layer: int, first: int = first, number: int = number) -> HieraBlock:
                opens = number > 0 and layer == 0
                window = 0 if first + layer in global_blocks else windows[number - opens]
                return HieraBlock(config, layer, window, stages[number - 1].dim if opens else None)

            self.stages.append(Transformer(config, block))

    def forward(self, images: Tensor) -> list[Tensor]:
        """images [B, 3, height, width] -> features of every level, [B, R, C, out_dim], the finest first"""
        x, seen = self.embed(images), []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        out: list[Tensor] = self.neck(seen)
        return out


class HieraEmbedding(nn.Module):
    """Patches that overlap; a small grid of positions is stretched over them, and one of a window's size repeated."""

    def __init__(self, dim: int, channels: int, kernel: int, stride: int, background: tuple[int, int], window: int):
        super().__init__()
        self.project = nn.Conv2d(channels, dim, kernel, stride, padding=kernel // 2)
        self.background = nn.Parameter(torch.zeros(dim, *background))
        self.repeated = nn.Parameter(torch.zeros(dim, window, window))

    def forward(self, images: Tensor) -> Tensor:
        """images [B, channels, height, width] -> [B, R, C, D]"""
        x: Tensor = self.project(images)
        places = F.interpolate(self.background[None], x.shape[2:], mode="bicubic")[0]
        times = [-(-side // self.repeated.shape[1]) for side in x.shape[2:]]
        repeated = self.repeated.repeat(1, *times)[:, : x.shape[2], : x.shape[3]]
        return (x + places + repeated).movedim(1, -1)


class HieraAttention(Attention):
    """Attention within windows of W x W; where it `halves` the grid, the queries of every 2 x 2 tokens are one, their
    largest numbers."""

    window, halves = 0, False

    def forward(
        self,
        x: Tensor,  # [B, R, C, D]
        source: Source | None = None,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
    ) -> Tensor:
        """-> [B, R, C, D], or half the rows and columns"""
        side = (self.window, self.window) if self.window else (x.shape[1], x.shape[2])
        windows, grid = parted(x, side)  # tokens of zeros where a window sticks out
        q = self.q(windows)
        if self.halves:
            q = halved(q)
        k, v = self.keys_values(windows.flatten(1, 2))
        seen = self.attend(q.flatten(1, 2).unflatten(-1, (-1, self.head_dim)).transpose(1, 2), k, v, None)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2).to(x.dtype).view_as(q))
        rows, cols = (n // (1 + self.halves) for n in x.shape[1:3])
        return joined(out, grid)[:, :rows, :cols]


class HieraBlock(Block):
    """A block on a grid; the first of a stage comes from the width `before`, and halves the grid."""

    attention = HieraAttention
    attn: HieraAttention

    def __init__(self, config: TransformerConfig, layer: int, window: int, before: int | None) -> None:
        super().__init__(config, layer)
        self.attn.window, self.attn.halves = window, before is not None
        self.widen = None if before is None else nn.Linear(before, config.dim)
        if before is not None:
            self.attn_norm = config.make_norm(before)
            for part in "qkv":
                setattr(self.attn, part, nn.Linear(before, config.dim))

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        seen = self.attn_norm(x)
        x = x if self.widen is None else halved(self.widen(seen))
        return self.after_attention(x + self.attn(seen), None)


class Pyramid(nn.Module):
    """Features of one width at every level, [B, R, C, out_dim]; at the levels in `from_above` those of the level above,
    which is coarser, are added. The finest is level 0."""

    def __init__(self, dims: Sequence[int], out_dim: int, from_above: Collection[int]) -> None:
        super().__init__()
        self.dim, self.from_above = out_dim, from_above
        self.levels = nn.ModuleList(nn.Conv2d(dim, out_dim, 1) for dim in dims)

    def forward(self, seen: Sequence[Tensor]) -> list[Tensor]:
        made: list[Tensor] = []
        for number in reversed(range(len(seen))):
            level = self.levels[number](seen[number].movedim(-1, 1))
            if number in self.from_above and made:
                level = level + F.interpolate(made[0], scale_factor=2.0, mode="nearest")
            made.insert(0, level)
        return [level.movedim(1, -1) for level in made]


def parted(x: Tensor, side: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """[B, R, C, D] -> windows [N, *side, D], with zeros where they stick out, and how many there are down and across"""
    down, across = (-(-n // s) for n, s in zip(x.shape[1:3], side, strict=True))
    x = F.pad(x, (0, 0, 0, across * side[1] - x.shape[2], 0, down * side[0] - x.shape[1]))
    return x.view(len(x), down, side[0], across, side[1], -1).transpose(2, 3).flatten(0, 2), (down, across)


def joined(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """The reverse: windows [N, W, W, D] -> [B, R, C, D]"""
    return windows.view(-1, *grid, *windows.shape[1:]).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def halved(x: Tensor) -> Tensor:
    """The largest numbers of every 2 x 2 vectors, [B, R, C, D] -> [B, R / 2, C / 2, D]"""
    return F.max_pool2d(x.movedim(-1, 1), 2).movedim(1, -1)
