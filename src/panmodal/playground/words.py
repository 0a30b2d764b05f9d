"""How the playground speaks: names of things and places, and captions at three levels of detail."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from panmodal.errors import InputError, suggest
from panmodal.playground.world import BACKGROUNDS, COLOURS, SHAPES, VALUES, WORLD, Filter, Object, Scene

LEVELS = ("brief", "detailed", "exact")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
TOWARDS = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
SUPERLATIVE = {"left": "leftmost", "right": "rightmost", "above": "topmost", "below": "lowest"}
REGIONS = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)


def caption(scene: Scene, level: str = "detailed") -> str:
    """Describes the scene.

    - brief: `a red circle and two blue stars`;
    - detailed, adding sizes, digits, regions and the background: `on a grey background, a large red
      circle with the digit 7 at the top left, a small blue star in the centre`;
    - exact, with the centre's x and y in units (96 along a side) in place of the region.
    """
    if level not in LEVELS:
        raise InputError(f"unknown caption level {level!r}{suggest(level, LEVELS)}")
    things = reading_order(scene.objects)
    if level == "brief":
        kinds: dict[tuple[str, str], int] = {}
        for thing in things:
            kinds[thing.colour, thing.shape] = kinds.get((thing.colour, thing.shape), 0) + 1
        return listing([counted({"colour": c, "shape": s}, n) for (c, s), n in kinds.items()])
    said = [f"a {full_name(t)} {at(t) if level == 'exact' else region(t)}" for t in things]
    return f"on a {scene.background} background, " + ", ".join(said)


def objects_named(text: str) -> Counter[tuple[str, str]]:
    """How many things of each colour and shape a caption, at any level, names."""
    found: Counter[tuple[str, str]] = Counter()
    for number, colour, shape in re.findall(_NAMED, text.lower()):
        found[colour, shape] += NUMBERS.index(number) if number in NUMBERS else 1
    return found


_NAMED = (
    rf"(?:({'|'.join(NUMBERS)}) )?(?:(?:{'|'.join(VALUES['size'])}) )?"
    rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?\b"
)


def is_there(colour: str, shape: str) -> str:
    """Asks for a thing, as POPE does."""
    return f"Is there a {colour} {shape} in the picture?"


def is_description(text: str) -> bool:
    """Whether a text is a sentence as detailed captions are, true or not."""
    return re.fullmatch(_DETAILED, text.lower()) is not None


_DETAILED = (
    rf"on a (?:{'|'.join(BACKGROUNDS)}) background(?:, a (?:{'|'.join(VALUES['size'])}) (?:{'|'.join(COLOURS)}) "
    rf"(?:{'|'.join(SHAPES)})(?: with the digit \d)? (?:{'|'.join(sum(REGIONS, ()))}))+"
)


def reading_order(objects: Sequence[Object]) -> list[Object]:
    """By rows of the picture's thirds, each from left to right."""
    return sorted(objects, key=lambda o: (3 * o.y // WORLD, o.x, o.y))


def full_name(thing: Object) -> str:
    digit = f" with the digit {thing.digit}" if thing.digit else ""
    return f"{thing.size} {thing.colour} {thing.shape}{digit}"


def name(wanted: Filter, plural: bool = False) -> str:
    """`large red circle`, `red objects`, `object with the digit 7`"""
    noun = wanted.get("shape", "object")
    if plural:
        noun += "es" if noun.endswith("s") else "s"
    words = [wanted[a] for a in ("size", "colour") if a in wanted] + [noun]
    if "digit" in wanted:
        words += ["with the digit", wanted["digit"]]
    return " ".join(words)


def counted(wanted: Filter, number: int) -> str:
    if number == 1:
        return one(name(wanted))
    return f"{NUMBERS[number]} {name(wanted, plural=True)}"


def one(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def region(thing: Object) -> str:
    return REGIONS[3 * thing.y // WORLD][3 * thing.x // WORLD]


def at(thing: Object) -> str:
    return f"at {thing.x} {thing.y}"


def listing(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`"""
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
