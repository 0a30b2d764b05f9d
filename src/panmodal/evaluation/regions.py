"""Metrics of boxes and masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.masks import mask_iou
from panmodal.errors import InputError

WIDTH = 0.008  # of the picture's diagonal: how far apart boundaries may lie and still match
PRECISIONS = ("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large")
RECALLS = ("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large")


def box_iou(boxes: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union of boxes, left, top, right and bottom: [N, 4], [M, 4] -> [N, M]; 0 of two empty ones"""
    boxes, truths = boxes.double()[:, None], truths.double()
    sides = torch.minimum(boxes[..., 2:], truths[:, 2:]) - torch.maximum(boxes[..., :2], truths[:, :2])
    both = sides.clamp(min=0).prod(dim=-1)
    each, other = ((b[..., 2:] - b[..., :2]).clamp(min=0).prod(dim=-1) for b in (boxes, truths))
    return both / (each + other - both).clamp(min=1e-12)


def mean_iou(labels: Tensor, truth: Tensor, classes: int, ignore: int = 255) -> float:
    """Of a class to each pixel, integers of one shape: the mean of the classes' IoU, over those that there are, pixels
    whose truth is `ignore` left out."""
    seen = truth != ignore
    pairs = torch.bincount(truth[seen].long() * classes + labels[seen].long(), minlength=classes**2)
    table = pairs.view(classes, classes).double()
    either = table.sum(dim=0) + table.sum(dim=1) - table.diagonal()
    return float((table.diagonal() / either)[either > 0].mean())


def boundary_f(mask: Tensor, truth: Tensor) -> float:
    """How well boundaries agree (Perazzi et al., 2016): F1 of the boundary pixels of masks [H, W] bool that lie near
    the other's, within `WIDTH` of it."""
    reach = math.ceil(WIDTH * math.hypot(*mask.shape))
    edges = torch.stack([_boundary(mask), _boundary(truth)])
    steps = torch.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= reach**2).float()
    near = F.conv2d(edges[:, None].float(), disk[None, None], padding=reach)[:, 0] > 0.5
    said, true = edges.sum(dim=(1, 2)).tolist()
    if not said or not true:
        return float(said == true)
    precision, recall = int((edges[0] & near[1]).sum()) / said, int((edges[1] & near[0]).sum()) / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def j_and_f(masks: Tensor, truths: Tensor) -> dict[str, float]:
    """DAVIS's measures of an object in a video, masks [frames, H, W] bool: `j`, the mean IoU, `f`, the mean of
    `boundary_f`, and `j_and_f`, their mean. The first and last frame are not counted officially: leave them out."""
    j = float(mask_iou(masks, truths).double().mean())
    f = sum(boundary_f(mask, truth) for mask, truth in zip(masks, truths, strict=True)) / len(masks)
    return {"j": j, "f": f, "j_and_f": (j + f) / 2}


def coco_precision(
    truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]], kind: str = "bbox"
) -> dict[str, float]:
    """COCO's average precision and recall (Lin et al., 2014), of boxes (`bbox`) or masks (`segm`), by pycocotools.

    truth is what `instances_….json` holds; found, a list of image_id, category_id, score, and bbox or segmentation, its
    run lengths compressed or not.
    """
    try:
        from pycocotools import mask
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise InputError("COCO's average precision needs `pip install 'panmodal[coco]'`") from None
    if not found:
        return dict.fromkeys((*PRECISIONS, *RECALLS), 0.0)
    results = []
    for one in found:
        region: Any = one.get("segmentation")
        loose = isinstance(region, Mapping) and isinstance(region["counts"], list)  # as panmodal writes run lengths
        results.append({**one, "segmentation": mask.frPyObjects(region, *region["size"])} if loose else dict(one))
    with redirect_stdout(StringIO()):  # it tells of every step
        annotations = COCO()
        annotations.dataset = dict(truth)
        annotations.createIndex()
        evaluation = COCOeval(annotations, annotations.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip((*PRECISIONS, *RECALLS), map(float, evaluation.stats), strict=True))


def _boundary(mask: Tensor) -> Tensor:
    """The pixels of a mask [H, W] bool that differ from the next to the right, below, or both, where there is one"""
    wide = F.pad(mask[None].float(), (0, 1, 0, 1), mode="replicate")[0] > 0.5
    right, below, beyond = wide[:-1, 1:], wide[1:, :-1], wide[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ beyond)
