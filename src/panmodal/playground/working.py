"""The steps of a program, told one by one: a rationale in which every sentence says a single thing."""

from __future__ import annotations

from panmodal.playground.programs import Program, how_far, run
from panmodal.playground.words import SUPERLATIVE, TOWARDS, at, listing, name, one, reading_order
from panmodal.playground.world import Filter, Object, Scene, random_source, shuffled

ORDERS = {"left to right": "right", "top to bottom": "below"}  # in which things are told, by the way that they go


def worked(program: Program, scene: Scene) -> str:
    """What a program finds on its way, as sentences, the answer left out.

    What may be told in any order is told in one that depends on the scene and the program, so that who learns from it
    has more than one way to go. On a path things are named by colour and shape, which no two may share.
    """
    rng = random_source("worked", scene.split, scene.seed, str(program))
    match program:
        case ["query", _, path]:
            steps = [_told_in(order, scene) for order in shuffled(rng, tuple(ORDERS))] + _walked(path, scene)
        case ["more", these, those]:
            steps = [step for found in shuffled(rng, (these, those)) for step in _counted(found, scene)]
            more, fewer = sorted((these, those), key=lambda found: -len(run(found, scene)))
            steps.append(f"there are more {name(more[1], plural=True)} than {name(fewer[1], plural=True)}")
        case ["plus", ["count", these], ["count", those]]:
            sets = shuffled(rng, (these, those))
            numbers = [len(run(found, scene)) for found in sets]
            steps = [step for found in sets for step in _counted(found, scene)]
            steps.append(f"{numbers[0]} and {numbers[1]} makes {sum(numbers)}")
        case _:
            raise ValueError(f"the steps of {program[0]!r} are not told")
    return " ".join(f"{step}." for step in steps)


def _told_in(order: str, scene: Scene) -> str:
    things = sorted(scene.objects, key=lambda thing: how_far(ORDERS[order], thing))
    return f"{order} there are {listing([one(name(on_path(thing))) for thing in things])}"


def _walked(path: Program, scene: Scene) -> list[str]:
    found = name(on_path(run(path, scene)))
    match path:
        case ["only", ["find", wanted]]:
            return [] if name(wanted) == found else [f"the {name(wanted)} is the {found}"]
        case ["extreme", most, ["beside", side, origin]]:
            start = name(on_path(run(origin, scene)))
            return [*_walked(origin, scene), f"the {SUPERLATIVE[most]} {TOWARDS[side]} the {start} is the {found}"]
    raise ValueError(f"the steps of {path[0]!r} are not told")


def on_path(thing: Object) -> Filter:
    return {"colour": thing.colour, "shape": thing.shape}


def _counted(found: Program, scene: Scene) -> list[str]:
    things, (_, wanted) = run(found, scene), found
    told = [f"{one(f'{o.size} {o.colour} {o.shape}')} is {at(o)}" for o in reading_order(things)]
    return [*told, f"that makes {len(things)} {name(wanted, plural=len(things) != 1)}"]
