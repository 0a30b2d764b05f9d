"""Learning to segment: prompts are drawn from the true masks, as a person would click (Kirillov et al., 2023, A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.masks import from_rle, mask_iou
from panmodal.data.pictures import PaddedTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image, Sample
from panmodal.errors import InputError
from panmodal.generators.everything import boxes_around
from panmodal.generators.masks import ALL, BACKGROUND, BOTTOM_RIGHT, FOREGROUND, NOWHERE, TOP_LEFT
from panmodal.training.losses import dice_loss, focal_loss
from panmodal.training.world import drawn

ROUNDS = 3  # a point or a box, then clicks that correct the answer
MOST = 16  # masks of a picture that are learned from; others are left out
FOCAL = 20.0  # how much the focal loss counts beside the others
NOISE = (0.1, 20 / 1024)  # of a drawn box's corners: share of its sides, and at most this share of the picture's


@dataclass(frozen=True)
class Masks:
    """The `masks` of a sample, each in run lengths over its one picture.

    A picture is encoded once for all its masks. Each is asked for with a point on it or with its box, and then with
    clicks where the answer was wrong, the answer's logits beside them. The loss is focal and dice loss of the one
    mask, of the best of three where a point alone was given, and the squared error of all predicted IoUs.
    """

    def encode(self, processor: Processor, sample: Sample) -> tuple[Image, Tensor]:
        given = sample.about.get("masks")
        if len(sample.images) != 1 or not isinstance(given, Sequence) or not given:
            raise InputError("a sample of masks needs one picture, and run lengths of at least one mask")
        image, masks = sample.images[0], [from_rle(rle) for rle in given[:MOST]]
        for mask in masks:
            if mask.shape != image.pixels.size[::-1] or not mask.any():
                raise InputError(f"a mask of {list(mask.shape)} pixels is empty or not of its picture's size")
        return image, torch.stack(masks)

    def length(self, encoded: tuple[Image, Tensor]) -> int:
        return 0  # the order is kept

    def batch(self, processor: Processor, encoded: Sequence[tuple[Image, Tensor]]) -> Batch:
        transform = processor.images
        if not isinstance(transform, PaddedTransform):
            raise InputError("masks are learned by SAM models only")
        masks = torch.cat([transform.masks(found) for _, found in encoded])
        owners = torch.repeat_interleave(torch.tensor([len(found) for _, found in encoded]))
        seen = masks.flatten(1).any(dim=1)  # the rest is too small for the model's input
        regions = torch.cat([owners[:, None], boxes_around(masks) / transform.width], dim=1)
        pictures = processor.pictures([image for image, _ in encoded])
        return Batch(torch.empty(0, 0), images=pictures, regions=regions[seen], masks=masks[seen])

    def weight(self, batch: Batch) -> int:
        assert batch.masks is not None
        return len(batch.masks)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        assert batch.masks is not None
        assert batch.regions is not None
        truth, rows = batch.masks, torch.arange(len(batch.masks), device=batch.masks.device)
        owners, (features, fine) = batch.regions[:, 0].long(), model.look(batch.images)
        features, fine = features[owners], [x[owners] for x in fine]
        target = F.adaptive_avg_pool2d(truth[:, None].float(), 4 * features.shape[1]) >= 0.5  # at the logits' size
        points, kinds, doubtful = first_prompts(truth, batch.regions[:, 1:] * truth.shape[-1], model.boxes_end)
        total, mask = torch.zeros((), device=truth.device), None
        for _ in range(ROUNDS):
            logits, scores = model.decode(features, points, kinds, mask, ALL, fine=fine)
            wrong = FOCAL * focal_loss(logits, target) + dice_loss(logits, target)  # [R, 4]
            drawn = wrong[:, 0] + doubtful * wrong[:, 1:].amin(dim=1)
            total = total + drawn.mean() + F.mse_loss(scores, mask_iou(logits > 0, target))
            chosen = torch.where(doubtful, 1 + scores[:, 1:].argmax(dim=1), 0)
            mask = logits[rows, chosen].detach()
            click, kind = correction(mask, truth)
            points, kinds = torch.cat([points, click], dim=1), torch.cat([kinds, kind], dim=1)
            doubtful = torch.zeros_like(doubtful)
        return total / ROUNDS


def first_prompts(truth: Tensor, boxes: Tensor, alike: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Of masks [R, S, S] and their boxes [R, 4] a point or the box, by chance -> points [R, 2, 2], kinds [R, 2], and
    whether it is a point, [R]; all `alike` where boxes and points are prompts of different lengths"""
    pointed = drawn(torch.rand, truth[:, 0, 0]) < 0.5
    pointed = pointed[:1].expand_as(pointed) if alike else pointed
    click = F.pad(anywhere(truth), (0, 0, 0, 1))
    corners = boxes.view(-1, 2, 2)
    sides = corners[:, 1:] - corners[:, :1]
    share, most = NOISE
    noise = (drawn(torch.randn, corners) * share * sides).clamp(-most * truth.shape[-1], most * truth.shape[-1])
    kinds = torch.where(
        pointed[:, None],
        torch.tensor([FOREGROUND, NOWHERE], device=truth.device),
        torch.tensor([TOP_LEFT, BOTTOM_RIGHT], device=truth.device),
    )
    return torch.where(pointed[:, None, None], click, corners + noise), kinds, pointed


def correction(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """A click where an answer [R, h, w] is wrong, or on the thing if it is nowhere -> points [R, 1, 2], kinds [R, 1]"""
    said = F.interpolate(logits[:, None], truth.shape[-2:], mode="bilinear")[:, 0] > 0
    wrong = said ^ truth
    click = anywhere(torch.where(wrong.flatten(1).any(dim=1)[:, None, None], wrong, truth))
    x, y = click[:, 0].long().T
    inside = truth[torch.arange(len(truth), device=truth.device), y, x]
    return click, torch.where(inside, FOREGROUND, BACKGROUND)[:, None]


def anywhere(masks: Tensor) -> Tensor:
    """A pixel of each mask [R, H, W], every one equally likely -> [R, 1, 2], x and y"""
    chance = drawn(torch.rand, masks).masked_fill(~masks, -1)
    at = chance.flatten(1).argmax(dim=1, keepdim=True)
    return torch.stack([at % masks.shape[2], at // masks.shape[2]], dim=-1).float()
