"""Masks as run lengths and as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from torch import Tensor

from panmodal.errors import InputError

TINTS = ((30, 144, 255), (255, 99, 71), (60, 179, 113), (255, 200, 0), (186, 85, 211), (0, 206, 209))


Mask = Tensor | np.ndarray[Any, np.dtype[np.bool_]]  # [H, W] bool


def to_rle(mask: Mask) -> dict[str, list[int]]:
    """A mask [H, W] bool as COCO's uncompressed run lengths: `size` is height and width, `counts` how many pixels,
    column by column, are outside and inside in turn."""
    height, width = mask.shape
    pixels = np.concatenate([[False], np.asarray(mask).T.ravel()])
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]), height * width)
    return {"size": [height, width], "counts": np.diff(ends, prepend=0).tolist()}


def from_rle(rle: Mapping[str, Any]) -> Tensor:
    """COCO's uncompressed run lengths -> [H, W] bool. Raises InputError if they do not fill the mask."""
    try:
        height, width = map(int, rle["size"])
        counts = np.array(rle["counts"], np.int64)
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"a mask is given as 'size' [height, width] and a list of 'counts', not as {str(rle)[:80]!r}"
        ) from None
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != height * width:
        raise InputError(f"the counts of a mask of {height} x {width} must add up to its {height * width} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return torch.from_numpy(np.repeat(inside, counts).reshape(width, height).T.copy())


def mask_iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks [..., H, W] bool with others of that or a smaller shape -> [...]; 1 of two
    empty ones"""
    both, either = (m.flatten(-2).sum(dim=-1) for m in (masks & truth, masks | truth))
    return torch.where(either > 0, both / either, 1.0)


def to_picture(mask: Mask) -> Pil.Image:
    """A mask [H, W] bool in black and white"""
    return Pil.fromarray(np.asarray(mask, np.uint8) * 255)


def overlay(picture: Pil.Image, masks: Sequence[Mask]) -> Pil.Image:
    """The picture with each mask [H, W] bool tinted and outlined; the smallest lies on top."""
    pixels = np.asarray(picture, np.float32).copy()
    for mask, tint in zip(sorted(masks, key=lambda m: -int(m.sum())), cycle(TINTS)):
        inside = np.asarray(mask)
        padded = np.pad(inside, 1)
        core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * np.array(tint)
        pixels[inside & ~core] = tint
    return Pil.fromarray(pixels.astype(np.uint8))
