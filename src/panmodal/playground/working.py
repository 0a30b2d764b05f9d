"""The steps of a program, told one by one: a rationale in which every sentence says a single thing."""

from __future__ import annotations

from panmodal.playground.programs import Program, run
from panmodal.playground.words import SUPERLATIVE, TOWARDS, at, name, one, reading_order
from panmodal.playground.world import Object, Scene


def worked(program: Program, scene: Scene) -> str:
    """What a program finds on its way, as sentences, the answer left out.

    Things are told of in reading order, each with its place.
    """
    return " ".join(f"{step}." for step in _steps(program, scene))


def _steps(program: Program, scene: Scene) -> list[str]:
    match program:
        case ["query", _, of]:
            return _steps(of, scene)
        case ["more", *sets]:
            return [step for found in sets for step in _counted(found, scene)]
        case ["plus", ["count", these], ["count", those]]:
            numbers = [len(run(found, scene)) for found in (these, those)]
            sum_ = f"{numbers[0]} and {numbers[1]} makes {sum(numbers)}"
            return [*_counted(these, scene), *_counted(those, scene), sum_]
        case ["only", ["find", wanted]]:
            return [f"the {name(wanted)} is {at(run(program, scene))}"]
        case ["extreme", most, ["beside", side, origin]]:
            found = run(program, scene)
            sides = [
                f"{_told(o)} {at(o)} is {TOWARDS[side]} it" for o in reading_order(run(["beside", side, origin], scene))
            ]
            end = f"the {SUPERLATIVE[most]} {TOWARDS[side]} it is the {found.colour} {found.shape} {at(found)}"
            return [*_steps(origin, scene), *sides, end]
    raise ValueError(f"the steps of {program[0]!r} are not told")


def _counted(found: Program, scene: Scene) -> list[str]:
    things, (_, wanted) = run(found, scene), found
    makes = f"that makes {len(things)} {name(wanted, plural=len(things) != 1)}"
    return [*(f"{_told(o)} is {at(o)}" for o in reading_order(things)), makes]


def _told(thing: Object) -> str:
    return one(f"{thing.size} {thing.colour} {thing.shape}")
