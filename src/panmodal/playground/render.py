"""Drawing a scene: its picture, and every object's exact mask and box.

Shapes are signed distances (negative inside), anti-aliased by how far a pixel's centre lies
inside. Only additions, products, square roots, minima and maxima of single numbers are used, which
IEEE 754 fixes to the last bit: a seed gives the same bytes on every machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from panmodal.playground.world import BACKGROUNDS, WORLD, Object, Scene

Field = NDArray[np.float64]

COS18, SIN18, COS54, SIN54 = 0.9510565162951535, 0.3090169943749474, 0.5877852522924731, 0.8090169943749475
STAR_NORMALS = ((0.0, 1.0), (COS18, SIN18), (-COS18, SIN18), (COS54, -SIN54), (-COS54, -SIN54))

# How tall a digit may be on each shape, in radii.
DIGIT_HEIGHT = {"circle": 1.15, "square": 1.15, "triangle": 0.8, "star": 0.8, "cross": 1.0, "diamond": 0.95}
STROKES = {  # polylines on a grid 4 wide and 6 high
    "0": (((0, 1), (1, 0), (3, 0), (4, 1), (4, 5), (3, 6), (1, 6), (0, 5), (0, 1)),),
    "1": (((0.8, 1.4), (2.2, 0), (2.2, 6)), ((0.8, 6), (3.6, 6))),
    "2": (((0, 1.2), (1, 0), (3, 0), (4, 1.2), (4, 2.2), (0, 6), (4, 6)),),
    "3": (((0, 0), (4, 0), (2, 2.4), (3.2, 2.6), (4, 3.6), (4, 5), (3, 6), (1, 6), (0, 5)),),
    "4": (((3, 6), (3, 0), (0, 4), (4.2, 4)),),
    "5": (((4, 0), (0.3, 0), (0, 2.8), (1.2, 2.2), (3, 2.3), (4, 3.4), (4, 4.9), (3, 6), (1, 6), (0, 5.2)),),
    "6": (((3.6, 0), (1.4, 1), (0, 3.4), (0, 5), (1, 6), (3, 6), (4, 5), (4, 3.8), (3, 2.8), (1, 2.8), (0, 3.8)),),
    "7": (((0, 0), (4, 0), (1.4, 6)),),
    "8": (
        ((1, 0), (3, 0), (3.8, 0.8), (3.8, 2), (3, 2.8), (1, 2.8), (0.2, 2), (0.2, 0.8), (1, 0)),
        ((1, 2.8), (0, 3.8), (0, 5), (1, 6), (3, 6), (4, 5), (4, 3.8), (3, 2.8)),
    ),
    "9": (((0.4, 6), (2.6, 5), (4, 2.6), (4, 1), (3, 0), (1, 0), (0, 1), (0, 2.2), (1, 3.2), (3, 3.2), (4, 2.2)),),
}  # fmt: skip


def render(scene: Scene, size: int = WORLD) -> NDArray[np.uint8]:
    """Paints the scene -> [size, size, 3] uint8, RGB."""
    picture = np.empty((size, size, 3))
    picture[:] = BACKGROUNDS[scene.background]
    for thing in scene.objects:
        rows, cols, cover, ink = _stamp(thing, size)
        area = picture[rows, cols]
        area += cover[..., None] * (np.array(thing.tint, float) - area)
        if ink is not None:
            area += ink[..., None] * (_ink_colour(thing) - area)
    return np.asarray(np.floor(picture + 0.5), np.uint8)


def masks(scene: Scene, size: int = WORLD) -> NDArray[np.bool_]:
    """Which pixels show each object -> [objects, size, size] bool; a later object hides an earlier."""
    shown = np.zeros((len(scene.objects), size, size), bool)
    for i, thing in enumerate(scene.objects):
        rows, cols, cover, _ = _stamp(thing, size)
        inside = cover >= 0.5
        shown[:i, rows, cols] &= ~inside
        shown[i, rows, cols] = inside
    return shown


def boxes(scene: Scene, size: int = WORLD) -> NDArray[np.int64]:
    """Each object's box around its visible pixels -> [objects, 4], x0 y0 x1 y1, x1 and y1 exclusive."""
    found = np.zeros((len(scene.objects), 4), np.int64)
    for i, mask in enumerate(masks(scene, size)):
        ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if len(ys):
            found[i] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return found


def _ink_colour(thing: Object) -> Field:
    red, green, blue = thing.tint
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.full(3, 20.0 if bright > 120 else 250.0)


def _stamp(thing: Object, size: int) -> tuple[slice, slice, Field, Field | None]:
    """Where the object lies, how much of each pixel it covers there, and how much its digit does."""
    scale = size / WORLD
    x, y, radius = thing.x * scale, thing.y * scale, thing.radius * scale
    reach = int(radius * 1.25) + 2
    left, top = int(x) - reach, int(y) - reach
    cover, ink = _coverage(thing.shape, thing.digit, radius, x - int(x), y - int(y), reach)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + 2 * reach, size), min(top + 2 * reach, size)
    window = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    return slice(y0, y1), slice(x0, x1), cover[window], None if ink is None else ink[window]


@lru_cache(maxsize=4096)
def _coverage(
    shape: str, digit: str | None, radius: float, x: float, y: float, reach: int
) -> tuple[Field, Field | None]:
    centres = np.arange(-reach, reach) + 0.5
    px, py = np.meshgrid(centres - x, centres - y)
    cover = np.clip(0.5 - _distance(shape, px, py, radius), 0, 1)
    if digit is None:
        return cover, None
    unit = DIGIT_HEIGHT[shape] * radius / 6
    low = 0.12 * radius if shape == "triangle" else 0.0  # a triangle is widest below its centre
    ink = np.clip(0.5 - (_to_strokes(digit, px / unit + 2, (py - low) / unit + 3) - 0.55) * unit, 0, 1)
    return cover, ink * cover


def _distance(shape: str, x: Field, y: Field, r: float) -> Field:
    """Signed distance to the outline; exact enough near it, which is all that is used."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.asarray(np.sqrt(x * x + y * y) - r)
    if shape == "square":
        return np.asarray(np.maximum(ax, ay) - 0.86 * r)
    if shape == "diamond":
        return np.asarray((ax + ay - 1.12 * r) * 0.7071067811865476)
    if shape == "triangle":
        return np.asarray(np.maximum(y - 0.75 * r, 0.8944271909999159 * ax - 0.4472135954999579 * (y + 1.1 * r)))
    if shape == "cross":
        arm, end = 0.36 * r, 0.98 * r
        return np.asarray(np.minimum(np.maximum(ax - arm, ay - end), np.maximum(ax - end, ay - arm)))
    sides = np.stack([nx * x + ny * y for nx, ny in STAR_NORMALS]) - 0.36 * r
    return np.asarray(np.sort(sides, axis=0)[-2])  # a five-pointed star: inside at least four of its lines


def _to_strokes(digit: str, x: Field, y: Field) -> Field:
    """Distance to the digit's nearest stroke, in its grid's units."""
    nearest = np.full_like(x, 99.0)
    for line in STROKES[digit]:
        for (ax, ay), (bx, by) in zip(line, line[1:], strict=False):
            dx, dy = bx - ax, by - ay
            along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
            ex, ey = x - ax - along * dx, y - ay - along * dy
            nearest = np.minimum(nearest, np.sqrt(ex * ex + ey * ey))
    return nearest
