"""The playground: a procedural world of coloured shapes, to learn from, test on and teach with.

From one seed follow a scene, its picture, each object's mask and box, a sound, a depth map, captions at
three levels of detail, and questions of fourteen kinds with answers, programs and rationales:

    scene = make_scene(7)
    render(scene)                        # [96, 96, 3] uint8
    sound(scene)                         # [32000] int16, two seconds
    caption(scene, "brief")
    for question in questions(scene, 14): ...
"""

from panmodal.playground.programs import run
from panmodal.playground.questions import KINDS, Question, questions
from panmodal.playground.render import boxes, masks, render
from panmodal.playground.sound import depth, sound
from panmodal.playground.words import LEVELS, caption, is_description, objects_named
from panmodal.playground.world import (
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    SPLITS,
    Object,
    Scene,
    crowded_scene,
    make_scene,
    one_changed,
    scene_of,
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
    "crowded_scene",
    "depth",
    "is_description",
    "make_scene",
    "masks",
    "objects_named",
    "one_changed",
    "questions",
    "render",
    "run",
    "scene_of",
    "single_object_scene",
    "sound",
]
