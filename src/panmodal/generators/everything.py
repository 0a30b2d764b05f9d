"""What segmenting everything in a picture needs besides a model (Kirillov et al., 2023, appendix B): where to click,
in which crops, and which of the masks to keep."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CROP_OVERLAP = 512 / 1500  # of the shorter side, between the four crops of the first layer
STABILITY_OFFSET = 1.0  # added to and taken from the threshold of a mask's logits
EDGE = 20  # pixels within which a box touches a crop's edge

Crop = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the picture; x1 and y1 exclusive


def crops(width: int, height: int, layers: int) -> list[Crop]:
    """The whole picture, and for each layer l = 1, 2, ... its 4 ** l overlapping crops"""
    found = [(0, 0, width, height)]
    for layer in range(1, layers + 1):
        side = 2**layer
        overlap = int(CROP_OVERLAP * min(width, height) * 2 / side)
        across, down = (math.ceil((overlap * (side - 1) + length) / side) for length in (width, height))
        for left in range(0, side * (across - overlap), across - overlap):
            for top in range(0, side * (down - overlap), down - overlap):
                found.append((left, top, min(left + across, width), min(top + down, height)))
    return found


def point_grid(side: int) -> Tensor:
    """side * side points evenly spread over a picture, [side ** 2, 2], x and y from 0 to 1, row by row"""
    at = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).flatten(0, 1)


def stability(logits: Tensor) -> Tensor:
    """How little each mask [M, H, W] depends on its threshold: its IoU at a higher and a lower one, [M]"""
    inner, outer = (
        (logits > offset).sum(dim=2, dtype=torch.int32).sum(dim=1) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET)
    )
    return inner / outer


def boxes_around(masks: Tensor) -> Tensor:
    """Masks [M, H, W] bool -> boxes [M, 4], x0 y0 x1 y1, x1 and y1 exclusive; zeros around an empty mask"""
    sides = []
    for dim in (1, 2):  # over the rows, and over the columns
        hit = masks.any(dim=dim).int()  # [M, W], then [M, H]
        length = hit.shape[1]
        low, high = hit.argmax(dim=1), length - hit.flip(1).argmax(dim=1)
        sides += [low, torch.where(hit.any(dim=1), high, 0)]
    x0, x1, y0, y1 = sides
    return torch.stack([x0, y0, x1, y1], dim=1)


def cut_off(boxes: Tensor, crop: Crop, width: int, height: int) -> Tensor:
    """Which boxes [M, 4] touch an edge of their crop that is not one of the picture, so that what they hold goes on
    beyond it, [M] bool"""
    ends = boxes - boxes.new_tensor([0, 0, 1, 1])  # as published: measured to the last pixel
    near_crop, near_picture = (
        (ends - boxes.new_tensor(edges)).abs() <= EDGE for edges in (crop, (0, 0, width, height))
    )
    return (near_crop & ~near_picture).any(dim=1)


def box_overlaps(boxes: Tensor) -> Tensor:
    """IoU of every two boxes [M, 4] -> [M, M]"""
    ends = boxes.float() - boxes.new_tensor([0, 0, 1, 1])  # as published: measured to the last pixel
    low, high = torch.maximum(ends[:, None, :2], ends[:, :2]), torch.minimum(ends[:, None, 2:], ends[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (ends[:, 2:] - ends[:, :2]).prod(dim=1)
    return shared / (area[:, None] + area - shared)


def mask_overlaps(masks: Tensor) -> Tensor:
    """IoU of every two masks [M, H, W] bool -> [M, M]"""
    flat = masks.flatten(1).float()
    shared, area = flat @ flat.T, flat.sum(dim=1)
    return shared / (area[:, None] + area - shared)


def suppress(overlaps: Tensor, scores: Tensor, most: float) -> Tensor:
    """Non-maximum suppression: the numbers of those to keep, best first. One goes if its IoU, [M, M], with one that
    is kept and scores higher is more than `most`."""
    order = scores.argsort(descending=True, stable=True).cpu()
    alike = overlaps.cpu()[order][:, order] > most
    gone = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for i, others in enumerate(alike):
        if not gone[i]:
            kept.append(i)
            gone |= others
    return order[kept]
