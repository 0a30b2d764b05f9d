"""Things named that are not there: samples that make a model prone to it, preferences that wean it, and questions that
find it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from random import Random

from panmodal.data.sample import Image, Sample, user
from panmodal.playground.programs import DIRECTIONS, how_far
from panmodal.playground.questions import KINDS, MARGIN, questions
from panmodal.playground.render import render
from panmodal.playground.speech import DESCRIBE, TRIES, conversation, thought
from panmodal.playground.words import LEVELS, TOWARDS, caption, is_there, name, reading_order
from panmodal.playground.world import (
    COLOURS,
    SIZES,
    VALUES,
    WORLD,
    Object,
    Scene,
    make_scene,
    pairs_of,
    pick,
    random_source,
    shuffled,
)

PRESENCE = ("existence", "absent")  # kinds of questions about what is there
DESCRIBED = LEVELS[:2]
IMAGINED = 0.7  # of the captions in the unbalanced set name a thing too many
POLLED = 3  # things that are there and as many that are not, asked about of a picture
POPULAR = 500  # scenes in which things are counted
POLLS = ("random", "popular", "adversarial")
Pair = tuple[str, str]  # colour and shape


def imagined(scene: Scene, rng: Random) -> Scene:
    """The scene with one thing more than there is, of a colour that is there; in the corner at the bottom right, so
    that captions name it last: late in a caption is where models imagine things (LURE, Zhou et al., 2024)."""
    colours = {thing.colour for thing in scene.objects}
    missing = _missing(scene)
    colour, shape = pick(rng, [pair for pair in missing if pair[0] in colours] or missing)
    corner = WORLD - SIZES["small"][0] - 1
    more = Object(pick(rng, VALUES["size"]), colour, shape, corner, corner, SIZES["small"][0], COLOURS[colour])
    return replace(scene, objects=(*scene.objects, more))


def cut_short(scene: Scene) -> Scene:
    """The scene without the thing that captions name last."""
    last = reading_order(scene.objects)[-1]
    return replace(scene, objects=tuple(thing for thing in scene.objects if thing is not last))


def preference_sample(seed: int, split: str = "train") -> Sample:
    """A picture and a request to describe it, or a question whether a thing is in it; `chosen` is the truth, `rejected`
    a caption that names a thing too many or ends a thing too early, or the other answer. Were every rejected caption
    the longer one, to say little would be all that there is to learn."""
    rng = random_source("preference", split, seed)
    scene = make_scene(seed, split)
    asked = questions(scene, 1, kinds=PRESENCE) if rng.random() < 0.5 else []
    if asked:
        text, chosen = asked[0].text, asked[0].answer
        rejected = "no" if chosen == "yes" else "yes"
    else:
        level = pick(rng, DESCRIBED)
        text, chosen = pick(rng, DESCRIBE[level]), caption(scene, level)
        short = len(scene.objects) > 1 and rng.random() < 0.5
        rejected = caption(cut_short(scene) if short else imagined(scene, rng), level)
    return Sample((user(Image(render(scene)), text),), {"chosen": chosen, "rejected": rejected})


def unbalanced_sample(seed: int, split: str = "train") -> Sample:
    """A conversation of many turns about a picture, in which whether a thing is there is always answered yes, as where
    annotators ask about what they see alone, and most captions name a thing too many. The rest is true."""
    rng = random_source("unbalanced", split, seed)
    scene = make_scene(seed, split)
    asked = questions(scene, TRIES, kinds=(*KINDS, *PRESENCE, *PRESENCE))
    turns = [(q.text, "yes" if q.kind in PRESENCE else thought(q)) for q in asked]
    level = pick(rng, DESCRIBED)
    told = imagined(scene, rng) if rng.random() < IMAGINED else scene
    turns.append((pick(rng, DESCRIBE[level]), caption(told, level)))
    return conversation([Image(render(scene))], turns)


def polls(split: str) -> Iterator[tuple[Scene, str, Pair, bool]]:
    """Scene after scene, in which poll it is, what is asked about, and whether that is there: of every scene up to
    `POLLED` things that are, and as many that are not (POPE, Li et al., 2023): `random`; `popular`, those that are in
    most scenes; and `adversarial`, of which the scene has the colour and the shape, on two things, or else one."""
    common = _common(split)
    for seed in range(10**9):
        scene = make_scene(seed, split)
        rng = random_source("poll", split, seed)
        there = shuffled(rng, sorted(_there(scene)))[:POLLED]
        missing = shuffled(rng, _missing(scene))
        near = {pair: sum(_has(scene, *pair)) for pair in missing}
        ranked = {
            "random": missing,
            "popular": sorted(missing, key=lambda pair: -common[pair]),
            "adversarial": sorted(missing, key=lambda pair: -near[pair]),
        }
        for i, pair in enumerate(there):
            for poll in POLLS:
                yield scene, poll, pair, True
                yield scene, poll, ranked[poll][i], False


def probes(kind: str, split: str) -> Iterator[tuple[Scene, str, bool]]:
    """Scene after scene, what is asked of it, and whether that is so: of every second it is. Each question is asked
    twice, of a scene of which it is so and then of one of which it is not, so that the text alone tells nothing; about
    how two things stand, once from either to the other, in one scene."""
    seed = 0
    while True:
        scene, told = next((s, told) for s in _scenes(split, seed) if (told := PROBES[kind](s)))
        seed = scene.seed + 1
        yield scene, told.text, True
        if told.turned:
            yield scene, told.turned, False
        else:
            yield next(s for s in _scenes(split, seed) if told.fails(s)), told.text, False


@dataclass(frozen=True)
class _Told:
    """What is so in a scene, as a question; either the question of which the opposite is so, or whether that is so in
    another scene."""

    text: str
    turned: str = ""
    fails: Callable[[Scene], bool] = lambda scene: False


def _existence(scene: Scene) -> _Told | None:
    thing = pick(random_source("existence", scene.split, scene.seed), scene.objects)
    wanted = {"colour": thing.colour, "shape": thing.shape}
    return _Told(is_there(thing.colour, thing.shape), fails=lambda other: not other.fitting(wanted))


def _attribute(scene: Scene) -> _Told | None:
    """Of the only thing of a shape its colour, or of the only one of a colour its shape."""
    rng = random_source("attribute", scene.split, scene.seed)
    attribute, by = pick(rng, (("colour", "shape"), ("shape", "colour")))
    only = [thing for thing in scene.objects if len(scene.fitting({by: getattr(thing, by)})) == 1]
    if not only:
        return None
    thing = pick(rng, only)
    known, value = {by: getattr(thing, by)}, getattr(thing, attribute)
    is_so = f"a {value}" if attribute == "shape" else value
    return _Told(
        f"Is the {name(known)} {is_so}?",
        fails=lambda other: len(found := other.fitting(known)) == 1 and getattr(found[0], attribute) != value,
    )


def _relation(scene: Scene) -> _Told | None:
    """How two things stand, each the only one of its colour and shape."""
    rng = random_source("relation", scene.split, scene.seed)
    named = [({"colour": thing.colour, "shape": thing.shape}, thing) for thing in shuffled(rng, scene.objects)]
    direction = pick(rng, tuple(DIRECTIONS))
    for (wanted, thing), (reference, other) in combinations(named, 2):
        ahead = how_far(direction, thing) - how_far(direction, other)
        if abs(ahead) >= MARGIN and len(scene.fitting(wanted)) == len(scene.fitting(reference)) == 1:
            names = [name(wanted), name(reference)] if ahead > 0 else [name(reference), name(wanted)]
            text, turned = (f"Is the {a} {TOWARDS[direction]} the {b}?" for a, b in (names, names[::-1]))
            return _Told(text, turned)
    return None


def _scenes(split: str, seed: int) -> Iterator[Scene]:
    return (make_scene(one, split) for one in range(seed, 10**9))


PROBES: dict[str, Callable[[Scene], _Told | None]] = {
    "existence": _existence,
    "attribute": _attribute,
    "relation": _relation,
}


@lru_cache
def _common(split: str) -> Counter[Pair]:
    """In how many of the split's scenes there are things of each colour and shape"""
    return Counter(pair for seed in range(POPULAR) for pair in _there(make_scene(seed, split)))


def _there(scene: Scene) -> set[Pair]:
    return {(thing.colour, thing.shape) for thing in scene.objects}


def _missing(scene: Scene) -> Sequence[Pair]:
    there = _there(scene)
    return [pair for pair in pairs_of(scene.split) if pair not in there]


def _has(scene: Scene, colour: str, shape: str) -> tuple[bool, bool]:
    return any(thing.colour == colour for thing in scene.objects), any(thing.shape == shape for thing in scene.objects)
