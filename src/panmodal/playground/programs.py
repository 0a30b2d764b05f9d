"""Reasoning programs over a scene: what a question asks, in steps that can be run.

A program is a nested list in JSON's types, its head naming the step:

    ["count", ["find", {"colour": "red"}]]
    ["query", "shape", ["extreme", "left", ["beside", "above", ["only", ["find", {"shape": "star"}]]]]]

| step | gives |
|---|---|
| `find F` | the objects that fit the filter F |
| `only S` | the single object of the set S |
| `beside R o` | the objects that stand in relation R (left, right, above, below) to the object o |
| `extreme R S` | the object of S that lies farthest in direction R |
| `exists S`, `count S` | `yes` or `no`; a number |
| `plus m n`, `minus m n` | the sum of two numbers; their difference |
| `more S T` | whether S has more objects than T |
| `query A o` | an attribute of o: size, colour, shape, digit, quarter |
| `same A o p` | whether o and p agree on A |
| `is R o p` | whether o stands in relation R to p |
| `background` | the background's colour |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from panmodal.errors import InputError, suggest
from panmodal.playground.world import BACKGROUNDS, DIGITS, VALUES, WORLD, Object, Scene

Program = list[Any]

QUARTERS = tuple(f"{row} {column}" for row in ("top", "bottom") for column in ("left", "right"))
ANSWERS = frozenset(("yes", "no", *DIGITS, *QUARTERS, *BACKGROUNDS, *(v for values in VALUES.values() for v in values)))
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


def run(program: Program, scene: Scene) -> Any:
    """Runs a program -> its value: a list of objects, an object, or the answer as a string."""
    step, *given = program
    if step not in STEPS:
        raise InputError(f"unknown program step {step!r}{suggest(str(step), STEPS)}")
    values = [run(g, scene) if isinstance(g, list) else g for g in given]
    return STEPS[step](scene, *values)


def how_far(direction: str, thing: Object) -> int:
    dx, dy = DIRECTIONS[direction]
    return dx * thing.x + dy * thing.y


def quarter(thing: Object) -> str:
    return ("top " if 2 * thing.y < WORLD else "bottom ") + ("left" if 2 * thing.x < WORLD else "right")


def _only(scene: Scene, things: list[Object]) -> Object:
    if len(things) != 1:
        raise InputError(f"'only' needs exactly one object and found {len(things)}")
    return things[0]


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


STEPS: dict[str, Callable[..., Any]] = {
    "find": lambda scene, wanted: scene.fitting(wanted),
    "only": _only,
    "beside": lambda scene, r, o: [p for p in scene.objects if how_far(r, p) > how_far(r, o)],
    "extreme": lambda _, r, things: max(things, key=lambda o: how_far(r, o)),
    "exists": lambda _, things: _yes(bool(things)),
    "count": lambda _, things: str(len(things)),
    "plus": lambda _, m, n: str(int(m) + int(n)),
    "minus": lambda _, m, n: str(int(m) - int(n)),
    "more": lambda _, these, those: _yes(len(these) > len(those)),
    "query": lambda _, a, o: quarter(o) if a == "quarter" else getattr(o, a),
    "same": lambda _, a, o, p: _yes(getattr(o, a) == getattr(p, a)),
    "is": lambda _, r, o, p: _yes(how_far(r, o) > how_far(r, p)),
    "background": lambda scene: scene.background,
}
