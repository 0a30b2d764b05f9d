"""How statements about boxes are put: in one of many ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from panmodal.playground.box_world import COLOURS, SHAPES, SIZES, Box, Boxes, Item
from panmodal.playground.world import pick

T = TypeVar("T")

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")
Fits = Callable[[Item], bool]
Count = Callable[[Box], int]
Rule = Callable[[Sequence[int]], bool]


@dataclass(frozen=True)
class Statement:
    """What is said, what it counts in each box, and when it is true."""

    text: str
    count: Count
    rule: Rule

    def counts(self, boxes: Boxes) -> list[int]:
        return [self.count(box) for box in boxes]

    def holds(self, boxes: Boxes) -> bool:
        return self.rule(self.counts(boxes))


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

    def how_many(self, most: int, none: bool = True) -> tuple[str, int, Callable[[int], bool]]:
        """`at least two`; the number that decides whether a noun is plural; and whether a count is that"""
        n = self.pick(1, 1, *range(1, most + 1))
        kind = self.pick("some", "some", "exactly", "least", *(("no", "most") if none else ()))
        if kind == "no":
            return "no", 1, lambda found: found == 0
        if kind == "most":
            return self.say(f"at most {self.number(n)}"), n, lambda found: found <= n
        if kind == "exactly":
            return self.say(f"{{exactly|exactly|only}} {self.number(n)}"), n, lambda found: found == n
        if kind == "least":
            said = (
                f"{{at least|at least|atleast}} {self.number(n)}" if n > 1 or self.pick(True, False) else "at least a"
            )
            return self.say(said), n, lambda found: found >= n
        return self.number(n) if n > 1 else self.say("{a|a|a|one|1}"), n, lambda found: found >= n

    def filter(self, touching: bool = True) -> tuple[Callable[[int], str], Fits]:
        """A thing's name, by how many there are, and whether an item is one"""
        colour, shape = self.pick("", *COLOURS, *COLOURS), self.pick("", *SHAPES)
        colour = colour or ("" if shape else self.pick(*COLOURS))
        size = self.pick("", "", "", "", "", "", *SIZES)
        other = self.pick("", "", *COLOURS) if colour and not self.pick(*range(8)) else ""
        noun = shape or self.say("{item|item|object}")
        side, where = self.touching() if touching and self.pick(True, False) else ("", lambda _: True)
        colours = {c for c in (colour, other) if c}
        shown = " or ".join(sorted(colours))

        def named(n: int) -> str:
            return " ".join(filter(None, (size, shown, noun if n == 1 else f"{noun}s", side)))

        def fits(item: Item) -> bool:
            return (
                (not colours or item.colour in colours)
                and (not shape or item.shape == shape)
                and (not size or item.size == size)
                and where(item)
            )

        return named, fits

    def touching(self) -> tuple[str, Fits]:
        where = self.pick("any", "any", "any", "not", "base", "right", "corner")
        verb = self.say("{touching|touching|closely touching}")
        if where == "not":
            return self.say(
                "not touching {the edge|any edge|any edge|an edge|the wall|any side}"
            ), lambda item: not item.sides
        if where == "base":
            return f"{verb} " + self.say("{the base|the bottom of a box|the bottom}"), lambda i: "bottom" in i.sides
        if where == "right":
            side = self.pick("right", "right", "right", "left")
            return f"{verb} " + self.say(f"{side} wall{{ of a box|}}"), lambda i: side in i.sides
        if where == "corner":
            return f"{verb} " + self.say("{a corner|a corner|the corner|a box corner|a corner of a box}"), _in_corner
        return f"{verb} " + self.say("{the edge|an edge|a edge|the wall|the wall|a wall|the side}"), lambda i: bool(
            i.sides
        )


def _in_corner(item: Item) -> bool:
    return len(item.sides) > 1
