"""The steps of a program, told one by one: a rationale in which every sentence says a single thing."""

from __future__ import annotations

from panmodal.playground.programs import Program, run
from panmodal.playground.words import SUPERLATIVE, TOWARDS, at, name
from panmodal.playground.world import Scene


def worked(program: Program, scene: Scene) -> str:
    """What a program finds on its way, as sentences, the answer left out."""
    return " ".join(f"{step}." for step in _steps(program, scene))


def _steps(program: Program, scene: Scene) -> list[str]:
    match program:
        case ["query", _, of]:
            return _steps(of, scene)
        case ["plus" | "minus" as step, ["count", these], ["count", those]]:
            first, second = (len(run(found, scene)) for found in (these, those))
            end = f"{first} and {second} makes {first + second}"
            if step == "minus":
                end = f"{first} is {first - second} more than {second}"
            return [f"there are {_many(first, these)} and {_many(second, those)}", end]
        case ["only", ["find", wanted]]:
            return [f"the {name(wanted)} is {at(run(program, scene))}"]
        case ["extreme", most, ["beside", side, origin]]:
            found = run(program, scene)
            end = f"the {SUPERLATIVE[most]} {TOWARDS[side]} it is the {found.colour} {found.shape} {at(found)}"
            return [*_steps(origin, scene), end]
    raise ValueError(f"the steps of {program[0]!r} are not told")


def _many(number: int, found: Program) -> str:
    return f"{number} {name(found[1], plural=number != 1)}"
