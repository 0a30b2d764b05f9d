"""Pictures of any size, whole and cut into tiles: LLaVA-NeXT's "any resolution" (Liu et al., 2024) and
LLaVA-OneVision's (Li et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image as Pil

from panmodal.data.sample import Image

Size = tuple[int, int]  # height, width


class Plan(NamedTuple):
    """How a picture is looked at beside the whole of it: in `tiles` (rows, columns), whose vectors, without
    those of the padding, are a grid of `kept`, shrunk to `grid` where there would be too many; a vector for a
    new line ends each of its rows."""

    tiles: Size
    kept: Size
    grid: Size


@dataclass(frozen=True)
class Tiling:
    """`tile` is the side of a tile in pixels, `side` in vectors; `resolutions` are those that tiles may make
    up, in pixels. With `most`, as in OneVision, a picture's tiles fill no more vectors than that many tiles
    have, and several pictures of a conversation are each looked at as a whole."""

    resolutions: tuple[Size, ...]
    tile: int
    side: int
    most: int | None = None

    def sizes(self, images: Sequence[Image]) -> list[Size]:
        """The size by which each picture of a conversation is cut: its own, or 0 x 0 if only the whole is looked at."""
        several = self.most is not None and len(images) > 1
        whole = [i.detail == "low" or (several and i.detail == "auto") for i in images]
        return [(0, 0) if w else i.pixels.size[::-1] for i, w in zip(images, whole, strict=True)]

    def vectors(self, size: Size) -> int:
        rows, columns = self.plan(size).grid
        return self.side**2 + max(rows, 1) * (columns + 1)

    def video_vectors(self, frames: int) -> int:
        """How many places a video fills: half as many a side and frame, and one at its end."""
        return frames * math.ceil(self.side / 2) ** 2 + 1

    def plan(self, size: Size) -> Plan:
        if size == (0, 0):
            return Plan((0, 0), (0, 0), (0, 0))
        height, width = size
        best = self.best(size)
        tiles = best[0] // self.tile, best[1] // self.tile
        rows, columns = tiles[0] * self.side, tiles[1] * self.side
        if width / height > columns / rows:
            rows -= (rows - int(round(height * columns / width, 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * rows / height, 7))) // 2 * 2
        excess = math.sqrt(rows * columns / (self.most * self.side**2)) if self.most else 1.0
        grid = (int(rows // excess), int(columns // excess)) if excess > 1.1 else (rows, columns)
        return Plan(tiles, (rows, columns), grid)

    def best(self, size: Size) -> Size:
        """The resolution that keeps most of a picture's pixels, and of those the least that wastes."""
        height, width = size

        def merit(resolution: Size) -> tuple[int, int]:
            scale = min(resolution[1] / width, resolution[0] / height)
            used = min(int(width * scale) * int(height * scale), width * height)
            return used, used - resolution[0] * resolution[1]

        return max(self.resolutions, key=merit)

    def cut(self, picture: Pil.Image, size: Size, resample: int) -> list[Pil.Image]:
        """The whole, and the tiles by rows: the picture as large as fits, black around it."""
        if size == (0, 0):
            return [picture]
        how = Pil.Resampling(resample)
        height, width = self.best(size)
        scale = width / picture.width, height / picture.height
        if scale[0] < scale[1]:
            fitted = picture.resize((width, min(math.ceil(picture.height * scale[0]), height)), how)
        else:
            fitted = picture.resize((min(math.ceil(picture.width * scale[1]), width), height), how)
        canvas = Pil.new("RGB", (width, height))
        canvas.paste(fitted, ((width - fitted.width) // 2, (height - fitted.height) // 2))
        corners = [(x, y) for y in range(0, height, self.tile) for x in range(0, width, self.tile)]
        tiles = [canvas.crop((x, y, x + self.tile, y + self.tile)) for x, y in corners]
        return [picture.resize((self.tile, self.tile), how), *tiles]
