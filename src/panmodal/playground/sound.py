"""What a scene sounds like, and how far away its objects are.

Each object sounds in turn, from left to right, a third of a second each, so that the six that there may be take
two seconds. Its colour is the pitch, from red, the lowest, to pink; its shape is the timbre and the rhythm, a
beat for every corner; a large object is louder than a small one. Like the pictures, a seed gives the same
samples on every machine: the sine is a table of whole numbers, and all else is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panmodal.playground.render import masks
from panmodal.playground.world import COLOURS, MAX_OBJECTS, WORLD, Object, Scene

RATE = 16_000  # samples a second
LENGTH = 2 * RATE
SLOT = LENGTH // MAX_OBJECTS
PITCHES = dict(zip(COLOURS, (262, 330, 415, 523, 659, 831, 1047, 1319), strict=True))  # Hz, a major third apart
LOUDNESS = {"small": 0.35, "large": 0.9}
ODD, ALL, PURE = ((1, 1), (3, 3), (5, 5)), ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5)), ((1, 1),)
VOICES = {  # beats in a slot, and the harmonics with what their loudness is divided by
    "circle": (1, PURE),
    "cross": (2, ODD),
    "triangle": (3, PURE),
    "square": (4, ODD),
    "star": (5, ALL),
    "diamond": (1, ALL),
}
EDGE = 64  # samples over which a beat swells and fades
SINE = np.round(32768 * np.sin(2 * np.pi * np.arange(RATE) / RATE)) / 32768  # whole numbers: no platform's last bits

FAR = 6000  # millimetres to the background
NEARNESS = 28_000  # an object of radius r is this / r away, as if all were of one size


def sound(scene: Scene) -> NDArray[np.int16]:
    """The scene's two seconds at 16 kHz -> [32000]"""
    heard = np.zeros(LENGTH)
    for i, thing in enumerate(left_to_right(scene)):
        heard[i * SLOT : (i + 1) * SLOT] = _note(thing)
    return np.asarray(np.floor(heard * 32767 + 0.5), np.int16)


def left_to_right(scene: Scene) -> list[Object]:
    return sorted(scene.objects, key=lambda o: (o.x, o.y))


def _note(thing: Object) -> NDArray[np.float64]:
    beats, harmonics = VOICES[thing.shape]
    at = np.arange(SLOT)
    wave = sum(SINE[at * PITCHES[thing.colour] * n % RATE] / part for n, part in harmonics)
    each = SLOT // beats
    on = each if beats == 1 else each * 2 // 3  # beats are parted by silence
    within = at % each
    swell = np.clip(np.minimum(within, on - within) / EDGE, 0, 1) * (at < beats * each)
    loudest = sum(1 / part for _, part in harmonics)
    return np.asarray(LOUDNESS[thing.size] / loudest * wave * swell)


def depth(scene: Scene, size: int = WORLD) -> NDArray[np.uint16]:
    """How far away what each pixel shows is, in millimetres -> [size, size]: large objects are near."""
    away = np.full((size, size), FAR, np.uint16)
    for thing, mask in zip(scene.objects, masks(scene, size), strict=True):
        away[mask] = NEARNESS // thing.radius
    return away
