"""Segmenting the playground's objects from simulated clicks and boxes (Kirillov et al., 2023, section 7.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.masks import mask_iou
from panmodal.data.sample import Image
from panmodal.evaluation.bootstrap import Score
from panmodal.evaluation.metrics import pearson
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import Example
from panmodal.families import Segmenter
from panmodal.generators.everything import boxes_around
from panmodal.generators.masks import BACKGROUND, FOREGROUND
from panmodal.playground import crowded_scene, masks
from panmodal.playground.words import full_name

CLICKS = 3
ALIKE = 0.75  # the IoU from which an object counts as found


@dataclass(frozen=True)
class SceneMasks(SceneTask):
    """Mean IoU of objects in crowded scenes: after one click at the object's centre, of the mask that the model
    scores best; with its box; and after three clicks, each later one at the centre of the largest error, along with
    the last answer. `iou_correlation` is that of the scores of all masks answered with their true IoU;
    `everything_recall_at_75` is the share of objects that segmenting everything finds. An answer is all of these, for
    every object of a picture."""

    rows = 1
    metric = "mean_iou_one_click"

    def examples(self, data: Path, split: str) -> list[Example]:
        scenes = [crowded_scene(seed, split) for seed in range(self.count)]
        return [Example(str(s.seed), (picture(s),), [full_name(o) for o in s.objects], {"scene": s}) for s in scenes]

    def ask(self, model: Segmenter, examples: Sequence[Example]) -> Iterator[dict[str, list[Any]]]:
        for one in examples:
            yield _segmented(model, one.messages[0].images[0], torch.from_numpy(masks(one.about["scene"])))

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        every = {name: [x for one in examples for x in answers[one.id][name]] for name in answers[examples[0].id]}
        scores, true = torch.tensor(every.pop("scores")), torch.tensor(every.pop("ious"))
        means = {name: fmean(values) for name, values in every.items()}
        return Score({**means, "iou_correlation": pearson(scores, true)}, {}, None)

    def mark(self, example: Example, answer: Mapping[str, list[float]]) -> float:
        return fmean(answer[self.metric])


def _segmented(model: Segmenter, image: Image, truths: Tensor) -> dict[str, list[Any]]:
    """What is asked about the objects of a picture, truths [N, H, W]: a value for each, and the scores and IoUs of all
    masks that were answered"""
    found: dict[str, list[Any]] = defaultdict(list)
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
            found[f"mean_iou_{name}"].append(float(right[given.best]))
            found["scores"] += given.scores.tolist()
            found["ious"] += right.tolist()
    segments = model.segment_everything(image)
    found["everything_recall_at_75"] = [any(bool(mask_iou(s.mask, t) >= ALIKE) for s in segments) for t in truths]
    return dict(found)


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
