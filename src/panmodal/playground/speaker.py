"""How statements about boxes are put: in one of many ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from panmodal.playground.box_world import COLOURS, SHAPES, SIZES, Box, Boxes, Item
from panmodal.playground.world import pick

T = TypeVar("T")

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
Fits = Callable[[Item], bool]
Count = Callable[[Box], int]
Enough = Callable[[int], bool]


@dataclass(frozen=True)
class Quantity:
    """How many of something: in the words of a statement, in those of thoughts (`least 2`), the number that decides
    whether a noun is plural, and whether a count is that."""

    text: str
    thought: str
    n: int
    enough: Enough


def least(n: int, text: str = "") -> Quantity:
    return Quantity(text, f"least {n}", n, lambda found: found >= n)


def exactly(n: int, text: str = "") -> Quantity:
    return Quantity(text, f"exactly {n}", n, lambda found: found == n)


def most(n: int, text: str = "") -> Quantity:
    return Quantity(text, f"most {n}", n, lambda found: found <= n)


@dataclass(frozen=True)
class Part:
    """What is counted in each box, and how many of it a box must have to be one that the statement speaks of."""

    name: str
    count: Count
    wanted: Quantity | None = None

    def thought(self, boxes: Boxes) -> str:
        counts = (str(self.count(box)) for box in boxes)
        return " ".join((*([self.wanted.thought] if self.wanted else []), self.name, *counts))


def fitting(name: str, fits: Fits, wanted: Quantity | None = None) -> Part:
    """How many items of a box are such"""
    return Part(name, lambda box: sum(map(fits, box)), wanted)


def _all_together(counts: Sequence[int]) -> int:
    return sum(counts)


def alike(counts: Sequence[int]) -> int:
    """How many are the same, of those that most are"""
    return max(map(list(counts).count, counts))


@dataclass(frozen=True)
class Statement:
    """What is said, and how it is judged. Its parts are counted in each box; where they say how many a box must have,
    the boxes that have them all count. `total` makes one number of the three, and `wanted` says which are true."""

    text: str
    parts: tuple[Part, ...]
    wanted: Quantity
    total: Callable[[Sequence[int]], int] = _all_together

    def counts(self, boxes: Boxes) -> list[int]:
        if self.parts[0].wanted is None:
            return [self.parts[0].count(box) for box in boxes]
        return [int(all(p.wanted.enough(p.count(box)) for p in self.parts if p.wanted)) for box in boxes]

    def holds(self, boxes: Boxes) -> bool:
        return self.wanted.enough(self.total(self.counts(boxes)))

    def thought(self, boxes: Boxes) -> str:
        """`least 2 black block 0 2 3, exactly 1 box 0 1 1 total 2`"""
        counts = self.counts(boxes)
        closing = [self.wanted.thought]
        if self.parts[0].wanted:
            closing += ["box", *map(str, counts)]
        elif self.total is alike:
            closing.append("same")
        return ", ".join(
            (*(p.thought(boxes) for p in self.parts), " ".join((*closing, "total", str(self.total(counts)))))
        )


@dataclass(frozen=True)
class Place:
    """Where a thing lies, in a statement and in thoughts, and whether an item does."""

    text: str
    thought: str
    fits: Fits


@dataclass(frozen=True)
class Filter:
    """A kind of thing: its name and place in a statement, its name in thoughts, and whether an item is one."""

    noun: str
    place: str
    name: str
    fits: Fits

    def text(self, n: int) -> str:
        return f"{self.noun}{'' if n == 1 else 's'} {self.place}".strip()

    def part(self, wanted: Quantity | None = None) -> Part:
        return fitting(self.name, self.fits, wanted)


class Speaker:
    """Says things in one of many ways, as its random source picks."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def pick(self, *options: T) -> T:
        return pick(self.rng, options)

    def say(self, text: str) -> str:
        """`{a|b}` stands for either."""
        return re.sub(r"\{([^{}]*)\}", lambda found: self.pick(*found[1].split("|")), text)

    def number(self, n: int) -> str:
        return self.pick(NUMBERS[n], NUMBERS[n], str(n))

    def how_many(self, largest: int, none: bool = True) -> Quantity:
        """`at least two`"""
        n = self.pick(1, 1, *range(1, largest + 1))
        kind = self.pick("some", "some", "exactly", "least", *(("no", "most") if none else ()))
        if kind == "no":
            return replace(exactly(0, "no"), n=1)
        if kind == "most":
            return most(n, self.say(f"at most {self.number(n)}"))
        if kind == "exactly":
            return exactly(n, self.say(f"{{exactly|exactly|only}} {self.number(n)}"))
        if kind == "least":
            plain = n > 1 or self.pick(True, False)
            return least(n, self.say(f"{{at least|at least|atleast}} {self.number(n)}") if plain else "at least a")
        return least(n, self.number(n) if n > 1 else self.say("{a|a|a|one|1}"))

    def filter(self, touching: bool = True) -> Filter:
        """A kind of thing"""
        colour, shape = self.pick("", *COLOURS, *COLOURS), self.pick("", *SHAPES)
        colour = colour or ("" if shape else self.pick(*COLOURS))
        size = self.pick("", "", "", "", "", "", *SIZES)
        other = self.pick("", "", *COLOURS) if colour and not self.pick(*range(8)) else ""
        noun = shape or self.say("{item|item|object}")
        where = self.touching() if touching and self.pick(True, False) else None
        colours = sorted({c for c in (colour, other) if c})

        def fits(item: Item) -> bool:
            return (
                (not colours or item.colour in colours)
                and (not shape or item.shape == shape)
                and (not size or item.size == size)
                and (not where or where.fits(item))
            )

        return Filter(
            " ".join(filter(None, (size, " or ".join(colours), noun))),
            where.text if where else "",
            " ".join(filter(None, (size, *colours, shape or "item", where.thought if where else ""))),
            fits,
        )

    def touching(self) -> Place:
        at = self.pick("any", "any", "any", "not", "base", "right", "corner")
        verb = self.say("{touching|touching|touching|closely touching|that is touching}")
        if at == "not":
            text = "not touching {the edge|any edge|any edge|an edge|the wall|any side}"
            return Place(self.say(text), "not edge", lambda item: not item.sides)
        if at == "base":
            text = "{the base|the bottom of a box|the bottom}"
            return Place(f"{verb} {self.say(text)}", "bottom", lambda item: "bottom" in item.sides)
        if at == "right":
            side = self.pick("right", "right", "right", "left")
            return Place(f"{verb} {self.say(side + ' wall{ of a box|}')}", side, lambda item: side in item.sides)
        if at == "corner":
            text = "{a corner|a corner|the corner|a box corner|a corner of a box}"
            return Place(f"{verb} {self.say(text)}", "corner", lambda item: len(item.sides) > 1)
        text = "{the edge|an edge|a edge|the wall|the wall|a wall|the side}"
        return Place(f"{verb} {self.say(text)}", "edge", lambda item: bool(item.sides))
