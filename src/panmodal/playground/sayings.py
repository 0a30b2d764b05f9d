"""What may be said of three boxes: kinds of statements, with one as an example of each."""

from __future__ import annotations

from collections.abc import Callable

from panmodal.playground.box_world import COLOURS, SHAPES, Box
from panmodal.playground.speaker import NUMBERS, Count, Fits, Rule, Speaker, Statement
from panmodal.playground.words import listing


def _rule(enough: Callable[[int], bool]) -> Rule:
    return lambda counts: enough(sum(counts))


def _be(n: int) -> str:
    return "there is" if n == 1 else "there are"


def _items(s: Speaker) -> Statement:
    """There are exactly two blue squares not touching the edge."""
    many, n, enough = s.how_many(4)
    named, fits = s.filter()
    text = f"{_be(n)} {many} {named(n)}"
    if s.pick(*range(6)) == 0 and (where := s.touching()):
        side, near = where
        plain, of_kind = s.filter(touching=False)
        if s.pick(True, False):
            text = s.say(f"none of the {plain(2)} are {side}")
            return Statement(text, _number(lambda i: of_kind(i) and near(i)), _rule(lambda found: found == 0))
        text = s.say(f"all {{the |}}{plain(2)} are {side}")
        return Statement(text, _number(lambda i: of_kind(i) and not near(i)), _rule(lambda found: found == 0))
    return Statement(s.say(text), _number(fits), _rule(enough))


def _number(fits: Fits) -> Count:
    return lambda box: sum(map(fits, box))


def _boxes(s: Speaker) -> Statement:
    """There are two boxes with a black circle."""
    what, has = _content(s)
    return _of_boxes(s, "{box|box|box|grey box|grey square}", what, has)


def _of_boxes(s: Speaker, noun: str, what: str, has: Callable[[Box], bool]) -> Statement:
    """A statement that so many boxes, or towers, have what is said."""
    noun = s.say(noun)
    plural = noun + ("es" if noun.endswith("x") else "s")
    with_ = s.say("{with|with|with|that has|which has|having}")
    count: Count = lambda box: int(has(box))  # noqa: E731
    form = s.pick("there", "there", "there", "there", "one", "each", "of")
    if form == "each":
        text = s.pick(f"each {noun} {s.say('{has|contains}')} {what}", f"all {plural} {s.say('{have|contain}')} {what}")
        return Statement(text, count, lambda counts: min(counts) > 0)
    n = s.pick(1, 1, 2)
    if form == "one":
        said = s.say(f"{noun} {{has|contains}}" if n == 1 else f"{plural} {{have|contain}}")
        text = f"{s.number(n)} {said} {what}"
        return Statement(text, count, _rule(lambda found: found >= n))
    if form == "of":
        text = f"{s.number(n)} of the {s.say('{|three }')}{s.say('{' + plural + '|' + noun + '}')} has {what}"
        return Statement(text, count, _rule(lambda found: found >= n))
    many, n, enough = s.how_many(2)
    with_ = with_ if n == 1 else with_.replace("has", s.pick("have", "has"))
    return Statement(s.say(f"{_be(n)} {many} {noun if n == 1 else plural} {with_} {what}"), count, _rule(enough))


def _content(s: Speaker) -> tuple[str, Callable[[Box], bool]]:
    """What may be said of a box: a black item and two blue circles"""
    form = s.pick("things", "things", "things", "number", "only", "colours", "topped", "most")
    colour, other = s.pick(*COLOURS), s.pick(*COLOURS)
    if form == "things":
        parts = [(s.how_many(3), s.filter(touching=not s.pick(*range(3)))) for _ in range(s.pick(1, 1, 2, 2, 3))]
        text = listing([f"{many} {named(n)}" for (many, n, _), (named, _) in parts])
        return text, lambda box: all(enough(sum(map(fits, box))) for (_, _, enough), (_, fits) in parts)
    if form == "number":
        many, n, enough = s.how_many(7, none=False)
        return f"{many} {s.say('{item|object}')}{'' if n == 1 else 's'}", lambda box: enough(len(box))
    if form == "only":
        both = {colour, other}
        said = " and ".join(sorted(both))
        text = s.pick(f"only {said} items", f"items of only {said} {s.say('{color|colour}')}")
        if s.pick(True, False):
            n = s.pick(2, 3, 4)
            text = s.say(f"{{only |exactly |}}{s.number(n)} items of {{only |}}{said} {{color|colour}}")
            return text, lambda box: len(box) == n and {i.colour for i in box} == both
        return text, lambda box: {i.colour for i in box} == both
    if form == "colours":
        n = s.pick(1, 2, 3)
        said = "only one color" if n == 1 else s.say(f"{{only |}}{s.number(n)} different {{colors|colours}}")
        said = s.say("all {3|three} {different |}{colors|colours}") if n == 3 else said
        text = s.pick(f"items of {said}", f"items of {said}", said)
        return text, lambda box: len({i.colour for i in box}) == n
    if form == "topped":
        n = s.pick(2, 3, 4, 5)
        text = f"{s.number(n)} items and {s.say('{a|the|}')} {colour} {s.say('{one|item|one}')} {s.say('{is |}')}on top"
        if s.pick(True, False):
            return f"a {colour} item on top", lambda box: box[0].colour == colour
        return " ".join(text.split()), lambda box: len(box) == n and box[0].colour == colour
    n = s.pick(2, 3, 4)
    return f"{s.number(n)} items at most", lambda box: len(box) <= n


def _sides(s: Speaker) -> Statement:
    """All three colours are touching the wall."""
    side, near = s.touching()
    count: Count = lambda box: len({i.colour for i in box if near(i)})  # noqa: E731
    if s.pick(True, False):
        colour = s.pick(*COLOURS)
        shape = s.pick("item", "item", "object", *SHAPES)
        text = s.say(f"all {{the |}}{colour} {shape}s are in the same box")
        return Statement(
            text,
            lambda box: sum(i.colour == colour and shape in ("item", "object", i.shape) for i in box),
            lambda counts: sum(n > 0 for n in counts) == 1,
        )
    return Statement(
        s.say(f"there is a box with all {{3|three}} {{colors|colours}} {side}"), count, lambda c: max(c) == 3
    )


def _above(s: Speaker) -> Statement:
    """There is a yellow item above a blue circle."""
    (upper, is_upper), (lower, is_lower) = s.filter(touching=False), s.filter(touching=False)
    text = s.say(f"there is {{a|a|at least one}} {upper(1)} {{above|above|over}} a {lower(1)}")
    count: Count = lambda box: int(any(is_upper(a) and is_lower(b) and a.y < b.y for a in box for b in box))  # noqa: E731
    return Statement(text, count, _rule(lambda found: found > 0))


def _towers(s: Speaker) -> Statement:
    """There is exactly one tower with a black block at the base."""
    parts = [_storeys(s) for _ in range(s.pick(1, 1, 1, 2))]
    joint = s.pick(" and ", " with ", ", and it has ")
    return _of_boxes(s, "tower", joint.join(text for text, _ in parts), lambda box: all(has(box) for _, has in parts))


def _storeys(s: Speaker) -> tuple[str, Callable[[Box], bool]]:
    """What may be said of a tower: a blue block over a black block"""
    form = s.pick(
        "place", "place", "place", "order", "order", "height", "height", "blocks", "blocks", "colours", "list"
    )
    colour, other = s.pick(*COLOURS), s.pick(*COLOURS)
    a = s.say("{a|a|a|one|1}")
    if form == "place":
        place, storey = s.pick(*PLACES[:2], *PLACES)
        if storey in (0, -1) and s.pick(*range(4)) == 0:
            return s.say(f"a {colour} {'{base|base}' if storey else 'top'}"), _has_at(storey, colour)
        return f"{a} {colour} {s.say('{block|block|block|item}')} {s.say(place)}", _has_at(storey, colour)
    if form == "order":
        above = s.pick(True, True, False)
        word = s.say("{over|above|over|on|on top of}" if above else "below")
        upper, lower = (colour, other) if above else (other, colour)
        text = f"{a} {colour} block {word} a {other} block"
        if s.pick(*range(5)) == 0:
            top = s.pick(True, False)
            text += s.say(" at the {top|top}" if top else " at the {base|base}")
            spot = slice(0, 2) if top else slice(-2, None)
            return text, lambda box: [i.colour for i in box][spot] == [upper, lower]
        return text, lambda box: any((a.colour, b.colour) == (upper, lower) for a, b in zip(box, box[1:], strict=False))
    if form == "height":
        many, n, enough = s.how_many(4, none=False)
        if s.pick(*range(4)) == 0:
            n = s.pick(1, 2, 3)
            return s.say(f"more than {s.number(n)} {'block' if n == 1 else 'blocks'}"), lambda box: len(box) > n
        return f"{many} {'block' if n == 1 else 'blocks'}", lambda box: enough(len(box))
    if form == "blocks":
        many, n, enough = s.how_many(3)
        tail = s.say("{| stacked together}") if n > 1 and s.pick(*range(4)) == 0 else ""
        text = f"{many} {colour} {'block' if n == 1 else 'blocks'}{tail}"
        if tail:
            row = [colour] * n
            return text, lambda box: any([i.colour for i in box[k : k + n]] == row for k in range(len(box)))
        return text, lambda box: enough(sum(i.colour == colour for i in box))
    if form == "colours":
        n = s.pick(1, 1, 2, 3)
        if n == 2 and s.pick(True, False) and colour != other:
            both = {colour, other}
            return s.say(f"only {' and '.join(sorted(both))} blocks"), lambda box: {i.colour for i in box} == both
        said = {1: "{only one color|blocks of only one color|blocks of the same color|all blocks of same colour}"}.get(
            n
        )
        said = said or ("blocks of all {3|three} {colors|colours}" if n == 3 else "blocks of two different colors")
        return s.say(said), lambda box: len({i.colour for i in box}) == n
    colours = [s.pick(*COLOURS) for _ in range(s.pick(2, 2, 3))]
    parts = [
        f"{s.number(n) if n > 1 else 'a'} {c} block{'s' if n > 1 else ''}" for c in COLOURS if (n := colours.count(c))
    ]
    return listing(parts), lambda box: all(sum(i.colour == c for i in box) >= colours.count(c) for c in colours)


PLACES = (
    ("{at the top|at the top|on top|as the top}", 0),
    ("{at the base|at the base|at base|as the base|at the bottom}", -1),
    ("as the second block", -2),
)


def _has_at(storey: int, colour: str) -> Callable[[Box], bool]:
    return lambda box: len(box) >= abs(storey) and box[storey].colour == colour


def _tops(s: Speaker) -> Statement:
    """There are two blue blocks as the base of a tower."""
    many, n, enough = s.how_many(3)
    colour = s.pick(*COLOURS)
    place, storey = s.pick(("top", 0), ("base", -1))
    text = f"{_be(n)} {many} {colour} {'block' if n == 1 else 'blocks'} as the {place} of a tower"
    tall: Callable[[int], bool] = lambda _: True  # noqa: E731
    if s.pick(True, False):
        more, m, tall = s.how_many(4, none=False)
        text += f" with {more} {'block' if m == 1 else 'blocks'}"
    at = _has_at(storey, colour)
    return Statement(text, lambda box: int(at(box) and tall(len(box))), _rule(enough))


def _tall(s: Speaker) -> Statement:
    """The tower with four blocks has a black block at the top."""
    n = s.pick(1, 2, 3, 4)
    what, has = _storeys(s)
    blocks = f"{NUMBERS[n]} {'block' if n == 1 else 'blocks'}"
    colour, (place, storey) = s.pick(*COLOURS), s.pick(("top", 0), ("base", -1))
    if s.pick(True, False):
        what, has = f"a {colour} {place}", _has_at(storey, colour)
        text = s.say(f"the {place} of {{a|the|one}} {{{blocks} tower|tower with {blocks}}} is {colour}")
    else:
        tower = s.pick(f"tower with {blocks}", f"tower with {blocks}", f"{NUMBERS[n]} blocks tower")
        text = s.say(f"{{the|a|there is a|there is a}} {tower} {{that has|which has|having}} {what}")
        text = text if text.startswith("there") else s.say(f"{{the|a|one}} {tower} {{has|contains}} {what}")
    return Statement(text, lambda box: int(len(box) == n and has(box)), _rule(lambda found: found > 0))


def _blocks(s: Speaker) -> Statement:
    """There are three black blocks."""
    many, n, enough = s.how_many(6)
    colour = s.pick(*COLOURS)
    if s.pick(*range(3)) == 0:
        other = s.pick(*COLOURS)
        text = s.say(f"there is {{a|a|at least one|one}} {colour} block {{over|above|on}} a {other} block")
        return Statement(
            text,
            lambda box: sum((a.colour, b.colour) == (colour, other) for a, b in zip(box, box[1:], strict=False)),
            _rule(lambda found: found > 0),
        )
    text = f"{_be(n)} {many} {colour} {'block' if n == 1 else 'blocks'}"
    return Statement(s.say(text), lambda box: sum(i.colour == colour for i in box), _rule(enough))


def _alike(s: Speaker) -> Statement:
    """There are at least two towers with the same height."""
    n = s.pick(2, 2, 3)
    many = s.pick(s.number(n), f"at least {s.number(n)}") if n == 2 else s.number(n)
    if s.pick(True, False):
        text = s.say(f"there are {many} towers {{with|which has|that have|of}} the same height")
        return Statement(text, len, lambda counts: len(set(counts)) <= 4 - n)
    place, storey = s.pick(("top", 0), ("base", -1))
    order = list(COLOURS)
    text = s.say(f"there are {many} towers {{with|which has|that have}} the same {place} {{color|colour}}")
    return Statement(text, lambda box: 1 + order.index(box[storey].colour), lambda counts: len(set(counts)) <= 4 - n)


def _plain(s: Speaker) -> Statement:
    """There is a black tower."""
    colour = s.pick(*COLOURS)
    n = s.pick(0, 0, 1, 2, 3)
    tail = f" with {s.say('{only|exactly|}')} {NUMBERS[n]} block{'s' if n > 1 else ''}" if n else ""
    has: Callable[[Box], bool] = lambda box: {i.colour for i in box} == {colour} and n in (0, len(box))  # noqa: E731
    text = " ".join(f"there is {s.say('{a|one|only one|exactly one}')} {colour} tower{tail}".split())
    one = "only" in text.split(" tower")[0] or "exactly" in text.split(" tower")[0]
    return Statement(text, lambda box: int(has(box)), _rule(lambda found: found == 1 if one else found > 0))


Kind = Callable[[Speaker], Statement]
SCATTERED: tuple[Kind, ...] = (_items,) * 5 + (_boxes,) * 5 + (_sides, _above)
TOWERS: tuple[Kind, ...] = (_towers,) * 6 + (_tops,) * 2 + (_blocks,) * 2 + (_tall, _alike, _plain)
