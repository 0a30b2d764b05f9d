"""Whether the steps of a rationale hold: each sentence, as questions have them, is checked against the scene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from panmodal.errors import InputError
from panmodal.playground.programs import ANSWERS, DIRECTIONS, Program, how_far, run
from panmodal.playground.questions import MARGIN
from panmodal.playground.words import REGIONS, SUPERLATIVE, TOWARDS, region
from panmodal.playground.world import BACKGROUNDS, COLOURS, SHAPES, VALUES, Filter, Object, Scene

NEAR = MARGIN // 2  # units by which a place may be missed, for then no order that is asked about changes


@dataclass
class Talk:
    """About what a rationale is, and what its next sentence may refer to: `it`, the last thing that was found, and
    `those` of the sentence before, if it was about any."""

    scene: Scene
    it: Object | None = None
    those: list[Object] | None = None

    def only(self, name: str) -> Object:
        return self.find(["only", ["find", _filter(name)]])

    def find(self, program: Program) -> Object:
        self.it = run(program, self.scene)
        assert self.it is not None
        return self.it

    def fitting(self, name: str) -> list[Object]:
        self.those = self.scene.fitting(_filter(name))
        return self.those


Judge = Callable[..., bool]  # of the talk, what `those` are, and a sentence's parts


def check(rationale: str, scene: Scene) -> list[bool | None]:
    """For each sentence whether it is true of the scene; None for one that is not in the playground's words. An
    answer alone is no step."""
    talk = Talk(scene)
    sentences = re.split(r"[.\n]", re.sub(r"</?think>", "\n", rationale.lower()))
    said = (" ".join(sentence.split()) for sentence in sentences)
    return [_judged(step, talk) for step in said if step and step not in ANSWERS]


def _judged(said: str, talk: Talk) -> bool | None:
    those, talk.those = talk.those, None
    for form, judge in FORMS:
        if match := form.fullmatch(said):
            try:
                return judge(talk, those, *match.groups())
            except InputError:  # it names what is not there, or not alone
                return False
    return None


def _filter(name: str) -> Filter:
    """`two large red circles` -> size, colour and shape"""
    found = {a: v for a, values in VALUES.items() for v in values if re.search(rf"\b{v}(?:e?s)?\b", name)}
    digit = re.search(r"digit (\d)", name)
    return {**found, **({"digit": digit[1]} if digit else {})}


def _near(thing: Object, place: str) -> bool:
    x, y = map(int, re.findall(r"\d+", place))
    return max(abs(thing.x - x), abs(thing.y - y)) <= NEAR


def _towards(direction: str) -> str:
    """`left of`, or `leftmost` -> `left`"""
    return next(d for d in DIRECTIONS if direction in (TOWARDS[d], SUPERLATIVE[d]))


Seen = list[Object] | None


def _where(talk: Talk, _: Seen, name: str, places: str) -> bool:
    return Counter(map(region, talk.fitting(name))) == Counter(re.findall(REGION, places))


def _at(talk: Talk, _: Seen, *said: str | None) -> bool:
    pairs = zip(said[::2], said[1::2], strict=True)
    return all(_near(talk.only(name), place) for name, place in pairs if name and place)


def _numbers(talk: Talk, _: Seen, *said: str) -> bool:
    pairs = zip(said[::2], said[1::2], strict=True)
    return all(len(talk.scene.fitting(_filter(name))) == int(number) for number, name in pairs)


def _alike(talk: Talk, _: Seen, a: str, value: str, b: str, other: str, than: str | None) -> bool:
    attribute = next(attribute for attribute, values in VALUES.items() if value in values)
    true = [getattr(talk.only(name), attribute) for name in (a, b)]
    return true == [value, other] and than in (None, value) and (value != other) == bool(than)


def _beside(talk: Talk, _: Seen, towards: str, name: str, places: str) -> bool:
    talk.those = run(["beside", _towards(towards), ["only", ["find", _filter(name)]]], talk.scene)
    said = re.findall(PLACE, places)
    met = {thing for thing in talk.those for place in said if _near(thing, place)}
    return len(met) == len(talk.those) == len(said)


def _farthest(talk: Talk, those: Seen, most: str, towards: str | None, name: str, place: str | None) -> bool:
    things = list(talk.scene.objects) if those is None else those
    if towards:
        it, way = talk.it, _towards(towards)
        things = [o for o in talk.scene.objects if it and how_far(way, o) > how_far(way, it)]
    talk.it = max(things, key=lambda thing: how_far(_towards(most), thing), default=None)
    return talk.it is not None and talk.it.fits(_filter(name)) and (place is None or _near(talk.it, place))


def _any(*options: str) -> str:
    return f"(?:{'|'.join(options)})"


NAME = rf"(?:{_any(*VALUES['size'])} )?(?:{_any(*COLOURS)} )?{_any('object', *SHAPES)}(?:e?s)?(?: with the digit \d)?"
REGION = _any(*sorted(sum(REGIONS, ()), key=len, reverse=True))
PLACE = r"at \d+ \d+"
SIDE = _any(*TOWARDS.values())
VALUE = _any(*(value for values in VALUES.values() for value in values))
LIST = "{0}(?:(?:, | and ){0})*"
FORMS: tuple[tuple[re.Pattern[str], Judge], ...] = tuple(
    (re.compile(form), judge)
    for form, judge in (
        (rf"there is no ({NAME})", lambda talk, _, name: not talk.fitting(name)),
        (rf"there (?:is an?|are) ({NAME}) ({LIST.format(REGION)})", _where),
        (r"that makes (\d+)", lambda _, those, number: those is not None and len(those) == int(number)),
        (r"(\d+) and (\d+) makes (\d+)", lambda _, __, a, b, c: int(a) + int(b) == int(c)),
        (r"(\d+) is (\d+) more than (\d+)", lambda _, __, a, b, c: int(a) == int(b) + int(c)),
        (rf"the ({NAME}) is ({REGION})", lambda talk, _, name, place: region(talk.only(name)) == place),
        (rf"the ({NAME}) is ({PLACE})(?: and the ({NAME}) ({PLACE}))?", _at),
        (rf"there are (\d+) ({NAME}) and (\d+) ({NAME})", _numbers),
        (rf"the ({NAME}) is ({VALUE}) and the ({NAME}) ({VALUE})(?: not ({VALUE}))?", _alike),
        (rf"({SIDE}) the ({NAME}) there are objects ({LIST.format(PLACE)})", _beside),
        (rf"the ({_any(*SUPERLATIVE.values())})(?: ({SIDE}) it)? is the ({NAME})(?: ({PLACE}))?", _farthest),
        (rf"the background is ({_any(*BACKGROUNDS)})", lambda talk, _, colour: talk.scene.background == colour),
    )
)
