"""Telling the playground's pictures from others, by their colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from panmodal.playground import box_world
from panmodal.playground.world import BACKGROUNDS, COLOURS, WORLD

NEAR = 24  # levels by which a pixel may miss a known colour, in any channel: tints, JPEG
KNOWN_SHARE = 0.85  # of a scene's pixels have a known colour, the rest being edges
BACKGROUND_SHARE = 0.5  # of them, the same background's

_GROUNDS = (*BACKGROUNDS.values(), box_world.GREY)
_THINGS = (*COLOURS.values(), (20, 20, 20), (250, 250, 250), *box_world.COLOURS.values())
_KNOWN = np.array([*_GROUNDS, *_THINGS], np.int16)


def is_scene(picture: Image.Image) -> bool:
    """Whether a picture looks like a scene or a box of the playground: one of its backgrounds over much of it,
    and hardly a colour that the world does not have."""
    small = picture.convert("RGB").resize((WORLD, WORLD), Image.Resampling.NEAREST)
    pixels = np.asarray(small, np.int16).reshape(-1, 1, 3)
    near = np.abs(pixels - _KNOWN).max(axis=2) <= NEAR  # [pixels, colours]
    background = near[:, : len(_GROUNDS)].mean(axis=0).max()
    return bool(near.any(axis=1).mean() >= KNOWN_SHARE and background >= BACKGROUND_SHARE)
