"""Segmenting the playground's objects from simulated clicks and boxes (Kirillov et al., 2023, section 7.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.masks import mask_iou
from panmodal.data.sample import Image
from panmodal.evaluation.metrics import pearson
from panmodal.families import Segmenter
from panmodal.generators.everything import boxes_around
from panmodal.generators.masks import BACKGROUND, FOREGROUND
from panmodal.playground import crowded_scene, masks, render

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

CLICKS = 3
ALIKE = 0.75  # the IoU from which an object counts as found


def segment(model: Segmenter, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Mean IoU of objects in crowded scenes: after one click at the object's centre, of the mask that the model
    scores best; with its box; and after three clicks, each later one at the centre of the largest error, along with
    the last answer. `iou_correlation` is that of the scores of all masks answered with their true IoU;
    `everything_recall_at_75` is the share of objects that segmenting everything finds."""
    ious: dict[str, list[float]] = {"one_click": [], "box": [], "three_clicks": []}
    scores, true, found = [], [], []
    for seed in range(asked.count):
        scene = crowded_scene(seed, asked.split)
        image, truths = Image(render(scene)), torch.from_numpy(masks(scene))
        seen = model.embed_image(image)
        for truth, box in zip(truths, boxes_around(truths).tolist(), strict=True):
            answers = {"box": model.segment(seen, boxes=[box])}
            points, labels, mask = [centre(truth)], [FOREGROUND], None
            answers["one_click"] = answer = model.segment(seen, points, labels)
            for _ in range(CLICKS - 1):
                said, mask = answer.masks[answer.best], answer.logits[answer.best]
                missed, added = truth & ~said, said & ~truth
                if not (missed | added).any():
                    break
                inside = bool(depths(missed).max() >= depths(added).max())
                points.append(centre(missed if inside else added))
                labels.append(FOREGROUND if inside else BACKGROUND)
                answer = model.segment(seen, points, labels, mask=mask)
            answers["three_clicks"] = answer
            for name, given in answers.items():
                right = mask_iou(given.masks, truth)
                ious[name].append(float(right[given.best]))
                scores.append(given.scores)
                true.append(right)
        segments = model.segment_everything(image)
        for truth in truths:
            found.append(any(mask_iou(s.mask, truth) >= ALIKE for s in segments))
        asked.progress(seed + 1, asked.count)
    metrics = {f"mean_iou_{name}": sum(values) / len(values) for name, values in ious.items()}
    metrics["iou_correlation"] = pearson(torch.cat(scores), torch.cat(true))
    metrics["everything_recall_at_75"] = sum(found) / len(found)
    return asked.count, metrics


def centre(mask: Tensor) -> tuple[float, float]:
    """x and y of the pixel of a mask [H, W] that lies deepest inside, of several the first"""
    y, x = divmod(int(depths(mask).argmax()), mask.shape[1])
    return x, y


def depths(mask: Tensor) -> Tensor:
    """How far each pixel of a mask [H, W] is from the nearest outside it, or beyond the picture; 0 outside"""
    padded = F.pad(mask, (1, 1, 1, 1))
    apart = [(torch.arange(n)[:, None] - torch.arange(n)).float() ** 2 for n in padded.shape]  # [h, h], [w, w]
    along = apart[1].expand(len(padded), -1, -1).masked_fill(padded[:, None], torch.inf).amin(dim=2)  # [h, w]
    return (apart[0][..., None] + along).amin(dim=1).sqrt()[1:-1, 1:-1]
