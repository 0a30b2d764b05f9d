"""What may be said of three boxes: kinds of statements, with one as an example of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from panmodal.playground.box_world import COLOURS, SHAPES, Box
from panmodal.playground.speaker import (
    NUMBERS,
    Fits,
    Part,
    Quantity,
    Speaker,
    Statement,
    alike,
    exactly,
    fitting,
    least,
    most,
)
from panmodal.playground.words import listing

Said = tuple[str, tuple[Part, ...]]  # of a box or a tower


def _be(n: int) -> str:
    return "there is" if n == 1 else "there are"


def _fact(name: str, holds: Callable[[Box], bool]) -> Part:
    """What a box is or is not, counted as 1 or 0"""
    return Part(name, lambda box: int(holds(box)), least(1))


def _items(s: Speaker) -> Statement:
    """There are exactly two blue squares not touching the edge."""
    many, kind = s.how_many(4), s.filter()
    if s.pick(*range(6)):
        return Statement(s.say(f"{_be(many.n)} {many.text} {kind.text(many.n)}"), (kind.part(),), many)
    where, kind = s.touching(), s.filter(touching=False)
    if s.pick(True, False):
        text = s.say(f"none of the {kind.text(2)} are {where.text}")
        near = fitting(f"{kind.name} {where.thought}", lambda i: kind.fits(i) and where.fits(i))
        return Statement(text, (near,), exactly(0))
    text = s.say(f"{{all the |all |}}{kind.text(2)} are {where.text}")
    away = "edge" if where.thought == "not edge" else f"not {where.thought}"
    far = fitting(f"{kind.name} {away}", lambda i: kind.fits(i) and not where.fits(i))
    return Statement(text, (far,), exactly(0))


def _boxes(s: Speaker) -> Statement:
    """There are two boxes with a black circle."""
    return _of_boxes(s, "{box|box|box|grey box|grey square}", *_content(s))


def _of_boxes(s: Speaker, noun: str, what: str, parts: tuple[Part, ...]) -> Statement:
    """A statement that so many boxes, or towers, have what is said."""
    noun = s.say(noun)
    plural = noun + ("es" if noun.endswith("x") else "s")
    form = s.pick("there", "there", "there", "there", "one", "each", "of")
    if form == "each":
        text = s.pick(f"each {noun} {s.say('{has|contains}')} {what}", f"all {plural} {s.say('{have|contain}')} {what}")
        return Statement(text, parts, least(3))
    if form == "one":
        n = s.pick(1, 1, 2)
        said = s.say(f"{noun} {{has|contains}}" if n == 1 else f"{plural} {{have|contain}}")
        return Statement(f"{s.number(n)} {said} {what}", parts, least(n))
    if form == "of":
        n = s.pick(1, 1, 2)
        named = s.pick(plural, plural, noun)
        them = s.say("{|three }") + named
        return Statement(f"{s.number(n)} of the {them} {s.say('{has|has|have|contains}')} {what}", parts, least(n))
    many = s.how_many(2)
    having = s.say("{with|with|with|with|that has|which has|having|that contains}")
    if many.n > 1 and s.pick(True, False):
        having = having.replace("has", "have").replace("contains", "contain")
    return Statement(f"{_be(many.n)} {many.text} {noun if many.n == 1 else plural} {having} {what}", parts, many)


def _content(s: Speaker) -> Said:
    """What may be said of a box: a black item and two blue circles"""
    form = s.pick("things", "things", "things", "number", "only", "colours", "sized", "sized", "most")
    colour, other = s.pick(*COLOURS), s.pick(*COLOURS)
    if form == "things":
        kinds = [(s.how_many(3), s.filter(touching=not s.pick(*range(3)))) for _ in range(s.pick(1, 1, 2, 2, 3))]
        text = listing([f"{many.text} {kind.text(many.n)}" for many, kind in kinds])
        return text, tuple(kind.part(many) for many, kind in kinds)
    if form == "number":
        many = s.how_many(7, none=False)
        return f"{many.text} {s.say('{item|object}')}{'' if many.n == 1 else 's'}", (_size(many),)
    if form == "only":
        only = _only(colour, other)
        said = " and ".join(sorted({colour, other}))
        if s.pick(True, False):
            n = s.pick(2, 3, 4)
            text = f"{{only |exactly |}}{s.number(n)} items of {{only |}}{said} {{color|colour}}"
            return s.say(text), (_size(exactly(n)), only)
        return s.pick(f"only {said} items", f"items of only {said} {s.say('{color|colour}')}"), (only,)
    if form == "colours":
        n = s.pick(1, 2, 3)
        said = "only one color" if n == 1 else s.say(f"{{only |}}{s.number(n)} different {{colors|colours}}")
        said = s.say("all {3|three} {different |}{colors|colours}") if n == 3 else said
        if s.pick(True, False):
            many, kind = s.how_many(2), s.filter(touching=False)
            return f"items of {said} and {many.text} {kind.text(many.n)}", (_colourful(n), kind.part(many))
        if s.pick(True, False):
            size = s.pick(2, 3, 4, 5)
            return f"{s.number(size)} items of {said}", (_size(exactly(size)), _colourful(n))
        return s.pick(f"items of {said}", said), (_colourful(n),)
    if form == "sized":
        n, one = s.pick(2, 3, 4, 5), s.say("{a|the|}") + f" {colour} " + s.say("{one|item}") + s.say("{| is}")
        if s.pick(*range(3)):
            where, part = "on top", _top(colour)
        else:
            side = s.touching()
            there: Fits = lambda i: i.colour == colour and side.fits(i)  # noqa: E731
            where, part = side.text, fitting(f"{colour} item {side.thought}", there, least(1))
        return " ".join(f"{s.number(n)} items and {one} {where}".split()), (_size(exactly(n)), part)
    n = s.pick(2, 3, 4)
    return f"{s.number(n)} items at most", (_size(most(n)),)


def _size(many: Quantity, name: str = "item") -> Part:
    return Part(name, len, many)


def _top(colour: str) -> Part:
    return _fact(f"{colour} top", lambda box: box[0].colour == colour)


def _only(*colours: str) -> Part:
    """All of them are there, and no others."""
    both = set(colours)
    return _fact(f"only {' '.join(sorted(both))}", lambda box: {i.colour for i in box} == both)


def _colourful(n: int) -> Part:
    return Part("color", lambda box: len({i.colour for i in box}), exactly(n))


def _somewhere(s: Speaker) -> Statement:
    """There is at least one black item in each box."""
    if s.pick(True, False):
        colour = s.pick(*COLOURS)
        return Statement(f"there is {s.pick('a', 'one')} {colour} item on top", (_top(colour),), least(1))
    many, kind = s.how_many(3), s.filter(touching=False)
    text = s.say(f"{_be(many.n)} {many.text} {kind.text(many.n)} in {{each box|all boxes|all the boxes|every box}}")
    return Statement(text, (kind.part(many),), least(3))


def _sides(s: Speaker) -> Statement:
    """There is a box with all three colours touching the wall."""
    if s.pick(True, False):
        colour, shape = s.pick(*COLOURS), s.pick("item", "item", "object", *SHAPES)
        text = s.say(f"all {{the |}}{colour} {shape}s are in the same box")
        shape = "" if shape in ("item", "object") else shape
        there: Fits = lambda i: i.colour == colour and shape in ("", i.shape)  # noqa: E731
        return Statement(text, (fitting(f"{colour} {shape or 'item'}", there, least(1)),), exactly(1))
    side = s.touching()
    text = s.say(f"there is a box with all {{3|three}} {{colors|colours}} {side.text}")
    part = Part(f"color {side.thought}", lambda box: len({i.colour for i in box if side.fits(i)}), exactly(3))
    return Statement(text, (part,), least(1))


def _above(s: Speaker) -> Statement:
    """There is a yellow item above a blue circle."""
    upper, lower = s.filter(touching=False), s.filter(touching=False)
    text = s.say(f"there is {{a|a|at least one}} {upper.text(1)} {{above|above|over}} a {lower.text(1)}")
    above = _fact(
        f"{upper.name} over {lower.name}",
        lambda box: any(upper.fits(a) and lower.fits(b) and a.y < b.y for a in box for b in box),
    )
    return Statement(text, (above,), least(1))


def _towers(s: Speaker) -> Statement:
    """There is exactly one tower with a black block at the base."""
    said = [_storeys(s) for _ in range(s.pick(1, 1, 1, 2))]
    joint = s.pick(" and ", " and ", " with ", " having ", " and it has ", " which has ", " that has ")
    return _of_boxes(s, "tower", joint.join(text for text, _ in said), tuple(p for _, parts in said for p in parts))


def _storeys(s: Speaker) -> Said:
    """What may be said of a tower: a blue block over a black block"""
    form = s.pick(
        "place", "place", "place", "order", "order", "height", "height", "blocks", "blocks", "colours", "list"
    )
    colour, other = s.pick(*COLOURS), s.pick(*COLOURS)
    a = s.say("{a|a|a|one|1}")
    if form == "place":
        text, name = s.pick(*PLACES[:2], *PLACES)
        at = (_at(name, colour),)
        if name == "second" or s.pick(*range(4)):
            return f"{a} {colour} {s.say('{block|block|block|item}')} {s.say(text)}", at
        return f"a {colour} {name}", at
    if form == "order":
        above = s.pick(True, True, False)
        word = s.say("{over|above|over|on|on top of}" if above else "below")
        upper, lower = (colour, other) if above else (other, colour)
        text = f"{a} {colour} block {word} a {other} block"
        if s.pick(*range(5)) == 0:
            place = s.pick("top", "base")
            spot = slice(0, 2) if place == "top" else slice(-2, None)
            there = _fact(f"{upper} over {lower} {place}", lambda box: [i.colour for i in box][spot] == [upper, lower])
            return f"{text} at the {place}", (there,)
        return text, (replace(_over(upper, lower), wanted=least(1)),)
    if form == "height":
        if s.pick(*range(4)) == 0:
            n = s.pick(1, 2, 3)
            return f"more than {s.number(n)} {'block' if n == 1 else 'blocks'}", (_size(least(n + 1), "block"),)
        if s.pick(*range(6)) == 0:
            text = f"only one {s.pick('block', 'item', 'object')} which is {colour}"
            return text, (_size(exactly(1), "block"), _at("top", colour))
        many = s.how_many(4, none=False)
        return f"{many.text} {'block' if many.n == 1 else 'blocks'}", (_size(many, "block"),)
    if form == "blocks":
        many = s.how_many(3)
        text = f"{many.text} {colour} {'block' if many.n == 1 else 'blocks'}"
        if many.n > 1 and s.pick(*range(8)) == 0:
            row = [colour] * many.n
            name = f"{many.n} {colour} together"
            return f"{text} stacked together", (
                _fact(name, lambda box: any([i.colour for i in box[k : k + len(row)]] == row for k in range(len(box)))),
            )
        return text, (_blocks_of(colour, many),)
    if form == "colours":
        n = s.pick(1, 1, 2, 3)
        if n == 2 and s.pick(True, False) and colour != other:
            return f"only {' and '.join(sorted((colour, other)))} blocks", (_only(colour, other),)
        one = "{only one color|blocks of only one color|blocks of the same color|all blocks of same colour}"
        said = (one, "blocks of two different colors", "blocks of all {3|three} {colors|colours}")[n - 1]
        return s.say(said), (_colourful(n),)
    colours = [s.pick(*COLOURS) for _ in range(s.pick(2, 2, 3))]
    counts = {c: n for c in COLOURS if (n := colours.count(c))}
    text = listing([f"{s.number(n) if n > 1 else 'a'} {c} block{'s' if n > 1 else ''}" for c, n in counts.items()])
    return text, tuple(_blocks_of(c, least(n)) for c, n in counts.items())


PLACES = (
    ("{at the top|at the top|on top|as the top}", "top"),
    ("{at the base|at the base|at base|as the base|at the bottom}", "base"),
    ("as the second block", "second"),
)
STOREYS = {"top": 0, "base": -1, "second": -2}


def _at(place: str, colour: str) -> Part:
    storey = STOREYS[place]
    return _fact(f"{colour} {place}", lambda box: len(box) >= abs(storey) and box[storey].colour == colour)


def _over(upper: str, lower: str) -> Part:
    pair = (upper, lower)
    return Part(
        f"{upper} over {lower}",
        lambda box: sum((a.colour, b.colour) == pair for a, b in zip(box, box[1:], strict=False)),
    )


def _blocks_of(colour: str, wanted: Quantity | None = None) -> Part:
    return Part(f"{colour} block", lambda box: sum(i.colour == colour for i in box), wanted)


def _tops(s: Speaker) -> Statement:
    """There are two blue blocks as the base of a tower."""
    many, colour, place = s.how_many(3), s.pick(*COLOURS), s.pick("top", "base")
    text = f"{_be(many.n)} {many.text} {colour} {'block' if many.n == 1 else 'blocks'} as the {place} of a tower"
    parts: tuple[Part, ...] = (_at(place, colour),)
    if s.pick(True, False):
        tall = s.how_many(4, none=False)
        text += f" with {tall.text} {'block' if tall.n == 1 else 'blocks'}"
        parts += (_size(tall, "block"),)
    return Statement(text, parts, many)


def _tall(s: Speaker) -> Statement:
    """The tower with four blocks has a black block at the top."""
    n = s.pick(1, 2, 3, 4)
    what, parts = _storeys(s)
    blocks = f"{NUMBERS[n]} {'block' if n == 1 else 'blocks'}"
    colour, place = s.pick(*COLOURS), s.pick("top", "base")
    if s.pick(True, False):
        parts = (_at(place, colour),)
        text = s.say(f"the {place} of {{a|the|one}} {{{blocks} tower|tower with {blocks}}} is {colour}")
    else:
        tower = s.pick(f"tower with {blocks}", f"tower with {blocks}", f"{NUMBERS[n]} blocks tower")
        text = s.say(f"{{the|a|there is a|there is a}} {tower} {{that has|which has|having}} {what}")
        text = text if text.startswith("there") else s.say(f"{{the|a|one}} {tower} {{has|contains}} {what}")
    return Statement(text, (_size(exactly(n), "block"), *parts), least(1))


def _storey(s: Speaker) -> Statement:
    """There is only one tower where the second block is black."""
    many, colour, place = s.how_many(2), s.pick(*COLOURS), s.pick("top", "base", "second", "second")
    spot = s.say("second block {|from the base }" if place == "second" else f"{place} {{|block }}")
    towers = f"{many.text} tower{'' if many.n == 1 else 's'}"
    text = f"{_be(many.n)} {towers} {s.pick('where', 'that')} the {spot}is {colour}"
    return Statement(text, (_at(place, colour),), many)


def _blocks(s: Speaker) -> Statement:
    """There are three black blocks."""
    many, colour = s.how_many(6), s.pick(*COLOURS)
    if s.pick(*range(3)) == 0:
        other = s.pick(*COLOURS)
        text = s.say(f"there is {{a|a|at least one|one}} {colour} block {{over|above|on}} a {other} block")
        return Statement(text, (_over(colour, other),), least(1))
    text = f"{_be(many.n)} {many.text} {colour} {'block' if many.n == 1 else 'blocks'}"
    return Statement(s.say(text), (_blocks_of(colour),), many)


def _alike(s: Speaker) -> Statement:
    """There are at least two towers with the same height."""
    two = s.number(2)
    few = s.pick(least(2, two), least(2, f"at least {two}"), exactly(2, s.say(f"{{only|exactly}} {two}")))
    many = s.pick(few, few, least(3, s.number(3)))
    if s.pick(True, False):
        text = s.say(f"there are {many.text} towers {{with|which has|that have|of}} the same height")
        return Statement(text, (Part("height", len),), many, alike)
    place, order = s.pick("top", "base"), list(COLOURS)
    text = s.say(f"there are {many.text} towers {{with|which has|that have}} the same {place} {{color|colour}}")
    part = Part(f"{place} color", lambda box: 1 + order.index(box[STOREYS[place]].colour))
    return Statement(text, (part,), many, alike)


def _plain(s: Speaker) -> Statement:
    """There is a black tower."""
    colour, n = s.pick(*COLOURS), s.pick(0, 0, 1, 2, 3)
    many = s.pick("a", "one", "only one", "exactly one")
    text, parts = f"there is {many} {colour} tower", [_only(colour)]
    if n:
        text += f" with {s.pick('', 'only ', 'exactly ')}{NUMBERS[n]} block{'s' if n > 1 else ''}"
        parts.append(_size(exactly(n), "block"))
    return Statement(text, tuple(parts), exactly(1) if "one" in many.split()[1:] else least(1))


Kind = Callable[[Speaker], Statement]
SCATTERED: tuple[Kind, ...] = (_items,) * 5 + (_boxes,) * 5 + (_sides, _above, _somewhere)
TOWERS: tuple[Kind, ...] = (_towers,) * 6 + (_tops,) * 2 + (_blocks,) * 2 + (_tall, _alike, _plain, _storey)
