"""Three boxes of things, as those of NLVR (Suhr et al., 2017): each a tower of blocks in one half of the scenes, things
that lie scattered in the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from panmodal.playground.world import between, pick, random_source

SIDE = 100  # of a box, in pixels
COLOURS = {"black": (0, 0, 0), "blue": (0, 153, 255), "yellow": (255, 255, 0)}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 10, "medium": 20, "big": 30}
GREY = (211, 211, 211)
SIDES = ("left", "right", "top", "bottom")
BESIDE = 0.5  # of things scattered lie at a side of their box


@dataclass(frozen=True)
class Item:
    """A thing in a box; `x` and `y` are of its top left corner, in pixels."""

    colour: str
    shape: str
    size: str
    x: int
    y: int

    @property
    def sides(self) -> tuple[str, ...]:
        """Those of the box that it touches."""
        far = SIDE - SIZES[self.size]
        at = {"left": self.x <= 0, "right": self.x >= far, "top": self.y <= 0, "bottom": self.y >= far}
        return tuple(side for side in SIDES if at[side])

    @property
    def name(self) -> str:
        return " ".join((self.size, self.colour, self.shape, *self.sides))


Box = tuple[Item, ...]  # from the top down
Boxes = tuple[Box, Box, Box]


def make_boxes(seed: int, split: str = "train") -> Boxes:
    """Draws the boxes of a seed."""
    rng = random_source("boxes", split, seed)
    make = _tower if rng.random() < 0.5 else _scattered
    return make(rng), make(rng), make(rng)


def _tower(rng: Random) -> Box:
    low = SIDE - SIZES["medium"]
    blocks = [Item(_colour(rng), "square", "medium", 40, low - 21 * floor) for floor in range(between(rng, 1, 4))]
    return tuple(blocks[::-1])


def _scattered(rng: Random) -> Box:
    wanted, box = between(rng, 1, 7), list[Item]()
    while len(box) < wanted:
        size = pick(rng, list(SIZES))
        far = SIDE - SIZES[size]
        x, y = between(rng, 0, far), between(rng, 0, far)
        if rng.random() < BESIDE:
            x, y = pick(rng, ((far, y), (x, far), (x, far), (far, y), (far, far), (0, y), (x, 0)))
        item = Item(_colour(rng), pick(rng, SHAPES), size, x, y)
        if all(_apart(item, other) for other in box):
            box.append(item)
    return tuple(sorted(box, key=lambda item: (item.y, item.x)))


def _colour(rng: Random) -> str:
    return pick(rng, list(COLOURS))


def _apart(a: Item, b: Item) -> bool:
    return (
        a.x + SIZES[a.size] < b.x or b.x + SIZES[b.size] < a.x or a.y + SIZES[a.size] < b.y or b.y + SIZES[b.size] < a.y
    )


def is_tower(box: Box) -> bool:
    """Whether all that is in it is stacked."""
    return len({item.x for item in box}) == 1 and all(i.shape == "square" and i.size == "medium" for i in box)


def picture(box: Box) -> NDArray[np.uint8]:
    """-> [100, 100, 3], RGB"""
    out = np.empty((SIDE, SIDE, 3))
    out[:] = GREY
    for item in box:
        size = SIZES[item.size]
        place = out[item.y : item.y + size, item.x : item.x + size]
        place += _cover(item.shape, size)[..., None] * (np.array(COLOURS[item.colour], float) - place)
    return np.asarray(np.floor(out + 0.5), np.uint8)


@lru_cache
def _cover(shape: str, size: int, fine: int = 4) -> NDArray[np.float64]:
    """How much of each pixel a shape covers: in a triangle, which stands, and a circle, of `fine` x `fine` points."""
    x = (np.arange(size * fine) + 0.5) / fine
    across, down = x[None], x[:, None]
    if shape == "circle":
        inside = (across - size / 2) ** 2 + (down - size / 2) ** 2 <= size**2 / 4
    else:
        inside = abs(across - size / 2) <= (down / 2 if shape == "triangle" else size)
    inside = np.broadcast_to(inside, (size * fine, size * fine))
    return np.asarray(inside.reshape(size, fine, size, fine).mean((1, 3)), np.float64)


def described(box: Box) -> str:
    """What lies in a box, from the top down, and which sides it touches: `tower blue black`, `small blue circle
    right, big black square`"""
    if is_tower(box):
        return " ".join(("tower", *(item.colour for item in box)))
    return ", ".join(item.name for item in box)


def description(boxes: Boxes) -> str:
    return "; ".join(map(described, boxes))
