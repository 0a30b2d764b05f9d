"""The playground: a procedural world of coloured shapes, to learn from, test on and teach with.

From one seed follow a scene, its picture, each object's mask and box, captions at three levels of
detail, and questions of fourteen kinds with answers, programs and rationales:

    scene = make_scene(7)
    render(scene)                        # [96, 96, 3] uint8
    caption(scene, "brief")
    for question in questions(scene, 14): ...
"""

from panmodal.playground.programs import run
from panmodal.playground.questions import KINDS, Question, questions
from panmodal.playground.render import boxes, masks, render
from panmodal.playground.words import LEVELS, caption, objects_named
from panmodal.playground.world import (
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    SPLITS,
    Object,
    Scene,
    make_scene,
    one_changed,
    single_object_scene,
)

__all__ = [
    "COLOURS",
    "HELD_OUT",
    "KINDS",
    "LEVELS",
    "SEEN",
    "SHAPES",
    "SPLITS",
    "Object",
    "Question",
    "Scene",
    "boxes",
    "caption",
    "make_scene",
    "masks",
    "objects_named",
    "one_changed",
    "questions",
    "render",
    "run",
    "single_object_scene",
]
