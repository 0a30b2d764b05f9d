"""The steps of a program, told one by one: a rationale in which every sentence says a single thing."""

from __future__ import annotations

from panmodal.playground.programs import Program, run
from panmodal.playground.words import SUPERLATIVE, TOWARDS, at, listing, name, one, reading_order
from panmodal.playground.world import Scene, random_source, shuffled


def worked(program: Program, scene: Scene) -> str:
    """What a program finds on its way, as sentences, the answer left out.

    Sets are counted in an order that depends on the scene and the program, so that who learns from it has more than one
    way to go. What is found on a path is named by its colour and shape, which no two things may share.
    """
    counting = shuffled(random_source("worked", scene.split, scene.seed, str(program)), (0, 1))
    match program:
        case ["query", _, path]:
            steps = _walked(path, scene)
        case ["more", *sets]:
            told = [f"{len(run(found, scene))} {_things(found, scene)}" for found in sets]
            steps = [step for i in counting for step in _counted(sets[i], scene)] + [f"there are {listing(told)}"]
        case ["plus", ["count", these], ["count", those]]:
            sets = [(these, those)[i] for i in counting]
            numbers = [len(run(found, scene)) for found in sets]
            steps = [step for found in sets for step in _counted(found, scene)]
            steps.append(f"{numbers[0]} and {numbers[1]} makes {sum(numbers)}")
        case _:
            raise ValueError(f"the steps of {program[0]!r} are not told")
    return " ".join(f"{step}." for step in steps)


def _walked(path: Program, scene: Scene) -> list[str]:
    match path:
        case ["only", _]:
            return []
        case ["extreme", most, ["beside", side, origin]]:
            start, found = _named(origin, scene), _named(path, scene)
            places = listing([at(o) for o in reading_order(run(["beside", side, origin], scene))])
            seen = f"{TOWARDS[side]} the {start} there are objects {places}"
            return [*_walked(origin, scene), seen, f"the {SUPERLATIVE[most]} is the {found}"]
    raise ValueError(f"the steps of {path[0]!r} are not told")


def _named(origin: Program, scene: Scene) -> str:
    """As the question has it, or by colour and shape"""
    match origin:
        case ["only", ["find", wanted]]:
            return name(wanted)
    thing = run(origin, scene)
    return f"{thing.colour} {thing.shape}"


def _counted(found: Program, scene: Scene) -> list[str]:
    things = run(found, scene)
    told = [f"{one(f'{o.size} {o.colour} {o.shape}')} is {at(o)}" for o in reading_order(things)]
    return [*told, f"that makes {len(things)} {_things(found, scene)}"]


def _things(found: Program, scene: Scene) -> str:
    return name(found[1], plural=len(run(found, scene)) != 1)
