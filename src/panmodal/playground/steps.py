"""Whether the steps of a rationale hold: each sentence, as questions have them, is checked against the scene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from panmodal.errors import InputError
from panmodal.playground.programs import ANSWERS, DIRECTIONS, run
from panmodal.playground.questions import MARGIN, SUPERLATIVE, TOWARDS
from panmodal.playground.words import REGIONS, region
from panmodal.playground.world import BACKGROUNDS, COLOURS, SHAPES, VALUES, Filter, Object, Scene

NEAR = MARGIN // 2  # units by which a place may be missed, for then no order that is asked about changes

Seen = list[Object]
Judge = Callable[..., tuple[bool, Seen | None]]


def check(rationale: str, scene: Scene) -> list[bool | None]:
    """For each sentence whether it is true of the scene; None for one that is not in the playground's words. An
    answer alone is no step."""
    told: list[bool | None] = []
    seen: Seen | None = None
    for sentence in re.split(r"[.\n]", re.sub(r"</?think>", "\n", rationale.lower())):
        if (said := " ".join(sentence.split())) and said not in ANSWERS:
            holds, seen = _judged(said, scene, seen)
            told.append(holds)
    return told


def _judged(said: str, scene: Scene, seen: Seen | None) -> tuple[bool | None, Seen | None]:
    """Whether a sentence holds, after one about the objects `seen`, and the objects that it is about if others may
    refer to them"""
    for form, judge in FORMS:
        if match := form.fullmatch(said):
            try:
                return judge(scene, seen, *match.groups())
            except InputError:  # it names what is not there, or not alone
                return False, None
    return None, None


def _filter(name: str) -> Filter:
    """`two large red circles` -> size, colour and shape"""
    found = {a: v for a, values in VALUES.items() for v in values if re.search(rf"\b{v}(?:e?s)?\b", name)}
    digit = re.search(r"digit (\d)", name)
    return {**found, **({"digit": digit[1]} if digit else {})}


def _only(scene: Scene, name: str) -> Object:
    found: Object = run(["only", ["find", _filter(name)]], scene)
    return found


def _near(thing: Object, place: str) -> bool:
    x, y = map(int, re.findall(r"\d+", place))
    return max(abs(thing.x - x), abs(thing.y - y)) <= NEAR


def _none(scene: Scene, _: Seen | None, name: str) -> tuple[bool, Seen]:
    things = scene.fitting(_filter(name))
    return not things, things


def _where(scene: Scene, _: Seen | None, name: str, places: str) -> tuple[bool, Seen]:
    things = scene.fitting(_filter(name))
    return Counter(map(region, things)) == Counter(re.findall(REGION, places)), things


def _makes(scene: Scene, seen: Seen | None, number: str) -> tuple[bool, None]:
    return seen is not None and len(seen) == int(number), None


def _is_where(scene: Scene, _: Seen | None, name: str, place: str) -> tuple[bool, None]:
    return region(_only(scene, name)) == place, None


def _is_at(scene: Scene, _: Seen | None, *said: str | None) -> tuple[bool, None]:
    pairs = zip(said[::2], said[1::2], strict=True)
    return all(_near(_only(scene, name), place) for name, place in pairs if name and place), None


def _numbers(scene: Scene, _: Seen | None, *said: str) -> tuple[bool, None]:
    pairs = zip(said[::2], said[1::2], strict=True)
    return all(len(scene.fitting(_filter(name))) == int(number) for number, name in pairs), None


def _alike(scene: Scene, _: Seen | None, a: str, value: str, b: str, other: str, than: str | None) -> tuple[bool, None]:
    attribute = next(attribute for attribute, values in VALUES.items() if value in values)
    true = [getattr(_only(scene, name), attribute) for name in (a, b)]
    return true == [value, other] and than in (None, value) and (value != other) == bool(than), None


def _beside(scene: Scene, _: Seen | None, towards: str, name: str, places: str) -> tuple[bool, Seen]:
    (direction,) = (d for d in DIRECTIONS if TOWARDS[d] == towards)
    things: Seen = run(["beside", direction, ["only", ["find", _filter(name)]]], scene)
    said = re.findall(PLACE, places)
    met = {thing for thing in things for place in said if _near(thing, place)}
    return len(met) == len(things) == len(said), things


def _farthest(scene: Scene, seen: Seen | None, most: str, name: str, place: str | None) -> tuple[bool, None]:
    (direction,) = (d for d in DIRECTIONS if SUPERLATIVE[d] == most)
    things = list(scene.objects) if seen is None else seen
    thing: Object | None = (
        run(["extreme", direction, ["find", {}]], Scene(tuple(things), "", {}, "", 0)) if things else None
    )
    return thing is not None and thing.fits(_filter(name)) and (place is None or _near(thing, place)), None


def _any(*options: str) -> str:
    return f"(?:{'|'.join(options)})"


NAME = rf"(?:{_any(*VALUES['size'])} )?(?:{_any(*COLOURS)} )?{_any('object', *SHAPES)}(?:e?s)?(?: with the digit \d)?"
REGION = _any(*sorted(sum(REGIONS, ()), key=len, reverse=True))
PLACE = r"at \d+ \d+"
VALUE = _any(*(value for values in VALUES.values() for value in values))
LIST = "{0}(?:(?:, | and ){0})*"
FORMS: tuple[tuple[re.Pattern[str], Judge], ...] = tuple(
    (re.compile(form), judge)
    for form, judge in (
        (rf"there is no ({NAME})", _none),
        (rf"there (?:is an?|are) ({NAME}) ({LIST.format(REGION)})", _where),
        (r"that makes (\d+)", _makes),
        (rf"the ({NAME}) is ({REGION})", _is_where),
        (rf"the ({NAME}) is ({PLACE})(?: and the ({NAME}) ({PLACE}))?", _is_at),
        (rf"there are (\d+) ({NAME}) and (\d+) ({NAME})", _numbers),
        (rf"the ({NAME}) is ({VALUE}) and the ({NAME}) ({VALUE})(?: not ({VALUE}))?", _alike),
        (rf"({_any(*TOWARDS.values())}) the ({NAME}) there are objects ({LIST.format(PLACE)})", _beside),
        (rf"the ({_any(*SUPERLATIVE.values())}) is the ({NAME})(?: ({PLACE}))?", _farthest),
        (rf"the background is ({_any(*BACKGROUNDS)})", lambda scene, _, colour: (scene.background == colour, None)),
    )
)
