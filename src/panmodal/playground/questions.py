"""Questions about a scene, each with its answer, its program and a rationale.

Every kind is asked so that the question alone tells nothing: yes/no kinds ask only where both
answers could have been asked for and then toss a coin, `count` asks for the scene's theme, and
attributes are drawn evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations, product
from random import Random

from panmodal.playground.programs import DIRECTIONS, Program, how_far, run
from panmodal.playground.words import OPPOSITE, SUPERLATIVE, TOWARDS, at, listing, name, one, reading_order, region
from panmodal.playground.working import worked
from panmodal.playground.world import (
    DIGITS,
    HELD_OUT,
    PAIRS,
    SEEN,
    VALUES,
    WORLD,
    Filter,
    Object,
    Scene,
    pick,
    random_source,
    shuffled,
)

MARGIN = 8  # units by which positions must differ before a question depends on them
FULL = 4  # things that a scene has of which is asked what takes several steps


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str
    program: Program
    rationale: str


def questions(scene: Scene, tries: int, seed: int = 0, kinds: Sequence[str] = ()) -> list[Question]:
    """Tries `tries` times to ask something about the scene, each kind once before any comes again.

    A kind that the scene does not allow, or a question asked already, gives nothing: which kinds
    come out does not depend on the answers. `kinds` says what is asked, by default all of `KINDS`; `seed` varies it.
    """
    rng = random_source("questions", scene.split, scene.seed, seed)
    view = _View(scene, rng)
    asked: dict[str, Question] = {}
    order: list[str] = []
    for _ in range(tries):
        order = order or shuffled(rng, kinds or tuple(KINDS))
        question = (KINDS | MORE_KINDS)[order.pop()](view)
        if question is not None:
            asked.setdefault(str(question.program), question)
    return list(asked.values())


@dataclass
class _View:
    """A scene as the questions see it: with a random source, and every object's possible names."""

    scene: Scene
    rng: Random
    names: list[list[Filter]] = field(init=False)

    def __post_init__(self) -> None:
        """Lists, for each object, the descriptions that fit it and no other."""
        described = []
        for thing in self.scene.objects:
            attributes = {a: getattr(thing, a) for a in VALUES}
            subsets = [dict(c) for n in (1, 2, 3) for c in combinations(attributes.items(), n)]
            if thing.digit:
                subsets.append({"digit": thing.digit})
            described.append(subsets)
        tally: dict[tuple[tuple[str, str], ...], int] = {}
        for subsets in described:
            for subset in subsets:
                key = tuple(subset.items())
                tally[key] = tally.get(key, 0) + 1
        self.names = [[s for s in subsets if tally[tuple(s.items())] == 1] for subsets in described]

    def pick(self, *options: str) -> str:
        return pick(self.rng, options)

    def coin(self) -> bool:
        return self.rng.random() < 0.5

    def named(self, hiding: str = "") -> list[tuple[Object, Filter]]:
        """The objects that can be named without giving away an attribute, shuffled, each with one
        of its names."""
        found = []
        for thing, options in zip(self.scene.objects, self.names, strict=True):
            fair = [f for f in options if hiding not in f and not (hiding == "size" and "digit" in f)]
            if fair:
                found.append((thing, pick(self.rng, fair)))
        return shuffled(self.rng, found)

    def pool(self) -> Collection[tuple[str, str]]:
        """The colours and shapes to ask about: held-out ones as often as there are of them, though
        the held-out split shows them more often, so that asking for one does not give it away."""
        novel = self.scene.split == "held-out" and self.rng.random() < len(HELD_OUT) / len(PAIRS)
        return sorted(HELD_OUT) if novel else SEEN

    def ask(self, kind: str, text: str, program: Program, rationale: str = "") -> Question:
        rationale = rationale or worked(program, self.scene)
        return Question(kind, text, run(program, self.scene), program, rationale)


def _the(wanted: Filter) -> Program:
    return ["only", ["find", wanted]]


def _where(things: Sequence[Object], wanted: Filter) -> str:
    if not things:
        return f"there is no {name(wanted)}."
    if len(things) == 1:
        return f"there is {one(name(wanted))} {region(things[0])}."
    return f"there are {name(wanted, plural=True)} {listing([region(t) for t in reading_order(things)])}."


def _existence(view: _View) -> Question | None:
    """Any attribute or pair of them; the absent ones are drawn from the whole world."""
    form = pick(view.rng, (("shape",), ("colour",), ("colour", "shape"), ("size", "shape"), ("size", "colour")))
    if form == ("colour", "shape"):
        every = [dict(zip(form, pair, strict=True)) for pair in view.pool()]
    else:
        every = [{}]
        for attribute in form:
            every = [f | {attribute: value} for f in every for value in VALUES[attribute]]
    return _yes_or_no_about_presence(view, "existence", every)


def _absent(view: _View) -> Question | None:
    """As POPE's adversarial split: colour and shape are both in the picture, but on one object?"""
    things = view.scene.objects
    every = [
        {"colour": c, "shape": s}
        for c, s in view.pool()
        if any(t.colour == c for t in things) and any(t.shape == s for t in things)
    ]
    return _yes_or_no_about_presence(view, "absent", every)


def _yes_or_no_about_presence(view: _View, kind: str, every: list[Filter]) -> Question | None:
    present = [f for f in every if view.scene.fitting(f)]
    absent = [f for f in every if f not in present]
    if not present or not absent:
        return None
    wanted = pick(view.rng, present if view.coin() else absent)
    text = view.pick(
        "Is there a {}?", "Is there a {} in the picture?", "Do you see a {}?", "Does the picture show a {}?"
    ).format(name(wanted))
    return view.ask(kind, text, ["exists", ["find", wanted]], _where(view.scene.fitting(wanted), wanted))


def _count(view: _View) -> Question | None:
    wanted = view.scene.theme
    if not wanted:
        return None
    text = view.pick("How many {} are there?", "How many {} do you see?", "Count the {}.", "What is the number of {}?")
    things = view.scene.fitting(wanted)
    rationale = f"{_where(things, wanted)} that makes {len(things)}."
    return view.ask("count", text.format(name(wanted, plural=True)), ["count", ["find", wanted]], rationale)


def _total(view: _View) -> Question | None:
    text = view.pick(
        "How many objects are there?", "How many things are in the picture?", "How many objects do you see in total?"
    )
    things = view.scene.objects
    rationale = f"{_where(things, {})} that makes {len(things)}."
    return view.ask("total", text, ["count", ["find", {}]], rationale)


def _attribute(kind: str, *forms: str) -> Callable[[_View], Question | None]:
    def question(view: _View) -> Question | None:
        pool = view.pool()
        for thing, wanted in view.named(hiding=kind):
            if getattr(thing, kind) is not None and (thing.colour, thing.shape) in pool:
                text = view.pick(*forms).format(name(wanted))
                rationale = f"the {name(wanted)} is {region(thing)}."
                return view.ask(kind, text, ["query", kind, _the(wanted)], rationale)
        return None

    return question


def _position(view: _View) -> Question | None:
    for thing, wanted in view.named():
        if min(abs(2 * thing.x - WORLD), abs(2 * thing.y - WORLD)) >= MARGIN:
            text = view.pick(
                "Which quarter of the picture is the {} in?", "In which quarter is the {}?", "Where is the {}?"
            )
            rationale = f"the {name(wanted)} is {at(thing)}."
            return view.ask("position", text.format(name(wanted)), ["query", "quarter", _the(wanted)], rationale)
    return None


def _relation(view: _View) -> Question | None:
    direction = view.pick(*DIRECTIONS)
    for (thing, wanted), (other, reference) in combinations(view.named(), 2):
        if abs(how_far(direction, thing) - how_far(direction, other)) >= MARGIN:
            text = view.pick("Is the {} {} the {}?", "Is the {} somewhere {} the {}?").format(
                name(wanted), TOWARDS[direction], name(reference)
            )
            rationale = f"the {name(wanted)} is {at(thing)} and the {name(reference)} {at(other)}."
            return view.ask("relation", text, ["is", direction, _the(wanted), _the(reference)], rationale)
    return None


def _compare(view: _View) -> Question | None:
    attribute = view.pick("colour", "shape", "size")
    tally = {value: len(view.scene.fitting({attribute: value})) for value in VALUES[attribute]}
    for pair in combinations(shuffled(view.rng, VALUES[attribute]), 2):
        these, those = shuffled(view.rng, pair)
        if tally[these] != tally[those] and (min(tally[these], tally[those]) > 0 or view.rng.random() < 0.05):
            first, second = {attribute: these}, {attribute: those}
            more = view.coin()
            text = f"Are there {'more' if more else 'fewer'} {name(first, True)} than {name(second, True)}?"
            sets = [["find", first], ["find", second]]
            both = [f"{n} {name(f, plural=n != 1)}" for f, n in ((first, tally[these]), (second, tally[those]))]
            rationale = f"there are {listing(both)}."
            return view.ask("compare", text, ["more", *(sets if more else sets[::-1])], rationale)
    return None


def _same(view: _View) -> Question | None:
    attribute = view.pick("colour", "shape", "size")
    found: dict[bool, tuple[Object, Filter, Object, Filter]] = {}
    for (thing, wanted), (other, reference) in combinations(view.named(hiding=attribute), 2):
        agree = getattr(thing, attribute) == getattr(other, attribute)
        found.setdefault(agree, (thing, wanted, other, reference))
    if len(found) < 2:
        return None
    thing, wanted, other, reference = found[view.coin()]
    text = view.pick("Do the {} and the {} have the same {}?", "Are the {} and the {} of the same {}?")
    first, second = getattr(thing, attribute), getattr(other, attribute)
    rationale = f"the {name(wanted)} is {first} and the {name(reference)} {second}"
    rationale += "." if first == second else f" not {first}."
    program: Program = ["same", attribute, _the(wanted), _the(reference)]
    return view.ask("same", text.format(name(wanted), name(reference), attribute), program, rationale)


def _chain(view: _View) -> Question | None:
    """Two relations: beside a thing, then the farthest among those."""
    for beside in shuffled(view.rng, tuple(DIRECTIONS)):
        across = ("above", "below") if beside in ("left", "right") else ("left", "right")
        for thing, wanted in view.named():
            gaps = {o: how_far(beside, o) - how_far(beside, thing) for o in view.scene.objects if o is not thing}
            chosen = reading_order([o for o, gap in gaps.items() if gap > 0])
            if len(chosen) < 2 or min(map(abs, gaps.values())) < MARGIN:
                continue
            extreme = pick(view.rng, across)
            first, second = sorted((how_far(extreme, o) for o in chosen), reverse=True)[:2]
            if first - second < MARGIN:
                continue
            text = f"What colour is the {SUPERLATIVE[extreme]} object {TOWARDS[beside]} the {name(wanted)}?"
            program: Program = ["query", "colour", ["extreme", extreme, ["beside", beside, _the(wanted)]]]
            found = max(chosen, key=lambda o: how_far(extreme, o))
            rationale = f"{TOWARDS[beside]} the {name(wanted)} there are objects {listing([at(o) for o in chosen])}."
            rationale += f" the {SUPERLATIVE[extreme]} is the {found.colour} {found.shape}."
            return view.ask("chain", text, program, rationale)
    return None


def _path(view: _View) -> Question | None:
    """From a thing to the nearest on one side, from there to the nearest on the next, and around, a turn at each."""
    turns = [(a, b) for a, b in product(DIRECTIONS, repeat=2) if b not in (a, OPPOSITE[a])]
    for start, wanted in view.named() if len(view.scene.objects) >= FULL else ():
        for a, b in shuffled(view.rng, turns):
            thing, program, said = start, _the(wanted), [f"the {name(wanted)}"]
            for side in (a, b, OPPOSITE[a], OPPOSITE[b]):
                if (found := _next(view.scene, side, thing)) is None:
                    break
                thing, program = found, ["extreme", OPPOSITE[side], ["beside", side, program]]
                said.append(f"the {SUPERLATIVE[OPPOSITE[side]]} object {TOWARDS[side]} it")
            else:
                return view.ask("path", f"Look at {listing(said)}. What colour is it?", ["query", "colour", program])
    return None


def _next(scene: Scene, way: str, thing: Object) -> Object | None:
    """The nearest thing on a side, if it is clear which are on that side, and which is the nearest"""
    gaps = sorted((how_far(way, o) - how_far(way, thing), i) for i, o in enumerate(scene.objects) if o is not thing)
    ahead = [(gap, i) for gap, i in gaps if gap > 0]
    clear = all(abs(gap) >= MARGIN for gap, _ in gaps) and (len(ahead) < 2 or ahead[1][0] - ahead[0][0] >= MARGIN)
    return scene.objects[ahead[0][1]] if ahead and clear else None


def _sum(view: _View) -> Question | None:
    """How many things have one attribute and how many another"""
    return _of_two_counts(view, "sum", "plus", "What is the number of {} plus the number of {}?")


def _difference(view: _View) -> Question | None:
    """How many more things have one attribute than another"""
    return _of_two_counts(view, "difference", "minus", "How many more {} than {} are there?")


def _of_two_counts(view: _View, kind: str, step: str, text: str) -> Question | None:
    """What makes one number of two counts, neither zero; any number that there can be is as likely."""
    things = view.scene.objects if len(view.scene.objects) >= FULL else ()
    found: dict[int, list[tuple[Program, Filter, Filter]]] = {}
    for first, second in permutations(VALUES, 2):
        for this, that in product(*(sorted({getattr(o, a) for o in things}) for a in (first, second))):
            these, those = {first: this}, {second: that}
            program: Program = [step, ["count", ["find", these]], ["count", ["find", those]]]
            if 0 <= (number := int(run(program, view.scene))) < len(DIGITS):
                found.setdefault(number, []).append((program, these, those))
    if not found:
        return None
    program, these, those = pick(view.rng, found[pick(view.rng, sorted(found))])
    return view.ask(kind, text.format(name(these, True), name(those, True)), program)


def _extreme(view: _View) -> Question | None:
    """An attribute of the object that lies farthest to one side."""
    direction, attribute = view.pick(*DIRECTIONS), view.pick(*VALUES)
    distances = sorted((how_far(direction, thing) for thing in view.scene.objects), reverse=True)
    if len(distances) < 2 or distances[0] - distances[1] < MARGIN:
        return None
    text = f"What {attribute} is the {SUPERLATIVE[direction]} object?"
    found: Object = run(["extreme", direction, ["find", {}]], view.scene)
    rationale = f"the {SUPERLATIVE[direction]} is the {found.colour} {found.shape} {at(found)}."
    return view.ask("extreme", text, ["query", attribute, ["extreme", direction, ["find", {}]]], rationale)


def _background(view: _View) -> Question | None:
    text = view.pick(
        "What colour is the background?", "What color is the background?", "Which colour does the background have?"
    )
    return view.ask("background", text, ["background"], f"the background is {view.scene.background}.")


KINDS: dict[str, Callable[[_View], Question | None]] = {
    "existence": _existence,
    "absent": _absent,
    "count": _count,
    "total": _total,
    "colour": _attribute(
        "colour",
        "What colour is the {}?",
        "What color is the {}?",
        "Which colour is the {}?",
        "What is the colour of the {}?",
    ),
    "shape": _attribute("shape", "What shape is the {}?", "Which shape does the {} have?", "What is the {}?"),
    "size": _attribute("size", "What size is the {}?", "Is the {} small or large?", "How big is the {}?"),
    "digit": _attribute(
        "digit", "What digit is on the {}?", "Which digit does the {} carry?", "Read the digit on the {}."
    ),
    "position": _position,
    "relation": _relation,
    "compare": _compare,
    "same": _same,
    "chain": _chain,
    "background": _background,
}
# What tiny/chat never learned, to tune it to.
MORE_KINDS: dict[str, Callable[[_View], Question | None]] = {
    "extreme": _extreme,
    "sum": _sum,
    "difference": _difference,
    "path": _path,
}
MULTI_STEP = ("difference", "sum", "path")  # kinds that compare or add counts, or go from thing to thing
