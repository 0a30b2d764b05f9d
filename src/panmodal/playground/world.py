"""The playground's world: what a scene holds and how one is drawn from a seed.

A scene lives on a square of 96 x 96 units, y pointing down. Everything in it follows from
`(split, seed)` through `random.Random.random`, whose stream is the same on every platform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Any, TypeVar

from panmodal.errors import InputError, suggest

T = TypeVar("T")

WORLD = 96  # units along a side; one pixel each in a picture of the default size
MAX_OBJECTS = 6
GAP = 2  # least distance between two objects, and to the picture's edge
CROWDED = (0.5, 0.8)  # of the sum of two radii: how near centres may come in a crowd, and two of them do

COLOURS = {
    "red": (222, 52, 50),
    "orange": (242, 138, 34),
    "yellow": (240, 208, 40),
    "green": (52, 166, 78),
    "cyan": (52, 196, 210),
    "blue": (52, 98, 224),
    "purple": (146, 72, 192),
    "pink": (244, 132, 186),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
SIZES = {"small": (7, 8), "large": (12, 14)}  # smallest and largest radius
BACKGROUNDS = {"white": (246, 246, 244), "grey": (188, 190, 194), "black": (24, 24, 28)}
VALUES = {"size": tuple(SIZES), "colour": tuple(COLOURS), "shape": SHAPES}  # adjectives' order
DIGITS = tuple("0123456789")
SPLITS = ("train", "test", "held-out")

# One shape of every colour never occurs in training, so that tests measure composition.
HELD_OUT = frozenset((c, SHAPES[(i + 2) % len(SHAPES)]) for i, c in enumerate(COLOURS))
PAIRS = tuple((c, s) for c in COLOURS for s in SHAPES)
SEEN = tuple(pair for pair in PAIRS if pair not in HELD_OUT)

# Chances (of 6) that a scene with k = 0..4 objects of its theme has n = 1..6 objects in all. Each
# k and each n is equally likely, so that neither can be guessed.
OBJECTS_GIVEN_THEME = (
    (2, 1, 1, 1, 1, 0),
    (3, 1, 0, 1, 0, 1),
    (0, 3, 1, 1, 0, 1),
    (0, 0, 3, 1, 1, 1),
    (0, 0, 0, 1, 3, 2),
)
THEMES = (("colour",), ("shape",), ("colour", "shape"), ("size", "colour"), ("size", "shape"))

Filter = dict[str, str]  # attribute -> value; an object fits if it agrees on every one


@dataclass(frozen=True)
class Object:
    """One thing in a scene. `x`, `y` (centre) and `radius` are in units; `tint` is the colour as
    painted; a large object may carry a digit, "0" to "9"."""

    size: str
    colour: str
    shape: str
    x: int
    y: int
    radius: int
    tint: tuple[int, int, int]
    digit: str | None = None

    def fits(self, wanted: Filter) -> bool:
        return all(getattr(self, attribute) == value for attribute, value in wanted.items())


@dataclass(frozen=True)
class Scene:
    """Objects on a background. The scene was built around `theme`: how many objects fit it (0 to
    4) is equally likely to be any of the five, so that counting them cannot be guessed."""

    objects: tuple[Object, ...]
    background: str
    theme: Filter
    split: str
    seed: int

    def fitting(self, wanted: Filter) -> list[Object]:
        return [o for o in self.objects if o.fits(wanted)]


def pick(rng: Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def shuffled(rng: Random, options: Sequence[T]) -> list[T]:
    return [options[i] for _, i in sorted((rng.random(), i) for i in range(len(options)))]


def between(rng: Random, low: int, high: int) -> int:
    return low + int(rng.random() * (high - low + 1))


def random_source(*key: object) -> Random:
    """A generator that depends on nothing but the key."""
    return Random("/".join(map(str, key)))


def make_scene(seed: int, split: str = "train") -> Scene:
    """Draws the scene of a seed.

    `train` and `test` hold the same kinds of things under seeds that do not meet; every scene of
    `held-out` has at least one object whose colour and shape never occur together in `train`.
    """
    rng, pairs = random_source("scene", split, seed), pairs_of(split)
    of_theme = between(rng, 0, 4)
    total = pick(rng, [n for n, chance in enumerate(OBJECTS_GIVEN_THEME[of_theme], 1) for _ in range(chance)])
    while True:
        theme, drawn = _draw_all(rng, pairs, of_theme, total)
        if split != "held-out" or any((d["colour"], d["shape"]) in HELD_OUT for d in drawn):
            return Scene(_place(rng, drawn), pick(rng, tuple(BACKGROUNDS)), theme, split, seed)


def crowded_scene(seed: int, split: str = "train") -> Scene:
    """A scene of two to six objects, of which some overlap: the later hides up to about half of the earlier, which is
    of another colour, so that its edge can be seen. Seeds and splits are as for `make_scene`."""
    rng, pairs = random_source("crowded", split, seed), pairs_of(split)
    least, near = CROWDED
    while True:
        drawn = [_draw(rng, pairs) for _ in range(between(rng, 2, MAX_OBJECTS))]
        objects = _place(rng, drawn, least)
        overlap = any(
            (a.x - b.x) ** 2 + (a.y - b.y) ** 2 < (near * (a.radius + b.radius)) ** 2
            for a, b in combinations(objects, 2)
        )
        if overlap and (split != "held-out" or any((o.colour, o.shape) in HELD_OUT for o in objects)):
            return Scene(objects, pick(rng, tuple(BACKGROUNDS)), {}, split, seed)


def single_object_scene(seed: int, colour: str, shape: str) -> Scene:
    """A scene with one object of the given colour and shape, the rest drawn from the seed."""
    return scene_of(seed, [(colour, shape)])


def scene_of(seed: int, pairs: Sequence[tuple[str, str]]) -> Scene:
    """A scene with an object for every pair of colour and shape, the rest drawn from the seed."""
    rng = random_source("single", *(value for pair in pairs for value in pair), seed)
    drawn = [{"size": pick(rng, VALUES["size"]), "colour": colour, "shape": shape} for colour, shape in pairs]
    return Scene(_place(rng, drawn), pick(rng, tuple(BACKGROUNDS)), {}, "single", seed)


def pairs_of(split: str) -> Sequence[tuple[str, str]]:
    """The colours and shapes of a split's objects"""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}{suggest(split, SPLITS)}")
    return PAIRS if split == "held-out" else SEEN


def one_changed(scene: Scene, rng: Random) -> tuple[str, Scene]:
    """An attribute, and the scene with another value of it at one of its objects: what a caption that all but
    fits the scene describes. Colours and shapes go together as in the scene's split."""
    pairs = PAIRS if scene.split == "held-out" else SEEN
    number = between(rng, 0, len(scene.objects) - 1)
    thing = scene.objects[number]
    attribute = pick(rng, ("colour", "shape", "digit" if thing.digit else "size"))  # small ones never have a digit
    while True:
        changed: dict[str, Any] = {attribute: pick(rng, VALUES.get(attribute, DIGITS))}
        other = replace(thing, **changed)
        if other != thing and ((other.colour, other.shape) in pairs or attribute not in ("colour", "shape")):
            return attribute, replace(scene, objects=(*scene.objects[:number], other, *scene.objects[number + 1 :]))


def _draw_all(rng: Random, pairs: Sequence[tuple[str, str]], of_theme: int, total: int) -> tuple[Filter, list[Filter]]:
    """A theme, and the attributes of `total` objects of which `of_theme` fit it."""
    form = pick(rng, THEMES)
    theme = {a: v for a, v in _draw(rng, pairs).items() if a in form}
    drawn = []
    for i in range(total):
        while _fits(attributes := _draw(rng, pairs), theme) != (i < of_theme):
            pass
        drawn.append(attributes)
    return theme, drawn


def _draw(rng: Random, pairs: Sequence[tuple[str, str]]) -> Filter:
    colour, shape = pick(rng, pairs)
    return {"size": pick(rng, VALUES["size"]), "colour": colour, "shape": shape}


def _fits(attributes: Filter, theme: Filter) -> bool:
    return all(attributes[a] == v for a, v in theme.items())


def _place(rng: Random, drawn: list[Filter], nearest: float = 1.0) -> tuple[Object, ...]:
    """Gives every object a radius, a place of its own, a tint and perhaps a digit. Centres of objects of unlike
    colours may come as near as `nearest` times the sum of their radii."""
    ordered = sorted(drawn, key=lambda d: d["size"])  # "large" before "small", while there is room
    while True:
        discs: list[tuple[int, int, int]] = []
        for attributes in ordered:
            radius = between(rng, *SIZES[attributes["size"]])
            shares = [1.0 if attributes["colour"] == other["colour"] else nearest for other in ordered]
            low, high = radius + GAP, WORLD - radius - GAP
            for _ in range(30):
                x, y = between(rng, low, high), between(rng, low, high)
                if all(
                    (x - ox) ** 2 + (y - oy) ** 2 >= (share * (radius + r) + GAP) ** 2
                    for share, (ox, oy, r) in zip(shares, discs, strict=False)
                ):
                    discs.append((x, y, radius))
                    break
        if len(discs) == len(ordered):
            break
    objects = []
    for attributes, (x, y, radius) in zip(ordered, discs, strict=True):
        red, green, blue = (min(255, c + between(rng, -10, 10)) for c in COLOURS[attributes["colour"]])
        digit = str(between(rng, 0, 9)) if attributes["size"] == "large" and rng.random() < 0.6 else None
        objects.append(Object(**attributes, x=x, y=y, radius=radius, tint=(red, green, blue), digit=digit))
    return tuple(shuffled(rng, objects))
