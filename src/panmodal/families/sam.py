"""Visually prompted: points, boxes and masks in, masks out (SAM, Kirillov et al., 2023; SAM 2, Ravi et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.checkpoints import sam, sam2
from panmodal.checkpoints.names import Names
from panmodal.checkpoints.parts import Config
from panmodal.data.masks import to_rle
from panmodal.data.pictures import PaddedTransform, StretchedTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Image
from panmodal.encoders import GridEncoder
from panmodal.encoders.hiera import HieraEncoder
from panmodal.errors import CheckpointError, InputError
from panmodal.families.base import Family
from panmodal.generators import MaskDecoder, PromptEncoder
from panmodal.generators.everything import (
    Crop,
    box_overlaps,
    boxes_around,
    crops,
    cut_off,
    mask_overlaps,
    point_grid,
    stability,
    suppress,
)
from panmodal.generators.masks import (
    FOREGROUND,
    NOWHERE,
    SEVERAL,
    SINGLE,
    Box,
    FineMaskDecoder,
    Point,
    as_prompts,
    by_place,
)

CLICKS, MASKS = 64, 16  # whose masks are made, and of these at full size, at a time
FEW = 2  # prompts in the decoder at a time, on a CPU: what it makes of more does not fit its caches
PUBLISHED = {"points_per_side": 32, "min_score": 0.88, "min_stability": 0.95, "overlap_of": "boxes"}


class Sam(nn.Module):
    """A picture is encoded once; each prompt about it then costs the decoder alone."""

    boxes_end = False  # whether a prompt that is a box ends with a point nowhere, too

    def __init__(self, encoder: GridEncoder | HieraEncoder, prompts: PromptEncoder, decoder: MaskDecoder) -> None:
        super().__init__()
        self.encoder, self.prompts, self.decoder = encoder, prompts, decoder

    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> features [B, R, C, D]"""
        out: Tensor = self.encoder(images)
        return out

    def look(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """images [B, 3, height, width] -> features [B, R, C, D], and those of higher resolution, if it has any"""
        return self.encode(images), ()

    def decode(
        self,
        features: Tensor,
        points: Tensor,
        kinds: Tensor,
        masks: Tensor | None = None,
        which: slice = SEVERAL,
        places: Tensor | None = None,
        fine: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Features [P, R, C, D], or [1, R, C, D] of one picture for all prompts; points [P, Q, 2] in pixels of the
        model's input; kinds [P, Q]; masks [P, 4R, 4C], logits of an earlier answer; places [R, C, D], the positions
        of features where they have been made; `fine`, as `look` gives them
        -> logits [P, M, 4R, 4C], predicted IoU [P, M]"""
        if self.boxes_end and kinds.numel() and (kinds != NOWHERE).all():
            points, kinds = F.pad(points, (0, 0, 0, 1)), F.pad(kinds, (0, 1), value=NOWHERE)
        places = self.prompts.grid(*features.shape[1:3]) if places is None else places
        out: tuple[Tensor, Tensor] = self.decoder(
            features + self.prompts.masks(masks), places, self.prompts.points(points, kinds), which, fine
        )
        return out

    def forward(
        self, images: Tensor, points: Tensor, kinds: Tensor, masks: Tensor | None = None, which: slice = SEVERAL
    ) -> tuple[Tensor, Tensor]:
        """images [B, 3, height, width] and a prompt for each -> logits [B, M, 4R, 4C], predicted IoU [B, M]"""
        features, fine = self.look(images)
        return self.decode(features, points, kinds, masks, which, fine=fine)


class Sam2(Sam):
    """The encoder's coarse features are what prompts look at; its finer ones go into the masks."""

    decoder: FineMaskDecoder
    boxes_end = True

    def __init__(self, encoder: HieraEncoder, prompts: PromptEncoder, decoder: FineMaskDecoder) -> None:
        super().__init__(encoder, prompts, decoder)
        self.no_memory = nn.Parameter(torch.zeros(1, decoder.dim))  # what a picture has instead of a video's past

    def encode(self, images: Tensor) -> Tensor:
        return self.look(images)[0]

    def look(self, images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """images [B, 3, height, width] -> features [B, R, C, D], and [B, R * C, 4, D / 4], [B, R * C, 4, 4, D / 8]"""
        finest, finer, coarse = self.encoder(images)[:3]
        to_finest, to_finer = self.decoder.fine
        fine = (
            by_place(conv(x.movedim(-1, 1)).movedim(1, -1), doublings)
            for conv, x, doublings in ((to_finer, finer, 1), (to_finest, finest, 2))
        )
        return coarse + self.no_memory, tuple(fine)


@dataclass(frozen=True)
class ImageEmbedding:
    """A picture as the encoder sees it: features [1, R, C, D] and their positions [R, C, D], its width and height in
    pixels, and `fine`, features of higher resolution, if there are any."""

    features: Tensor
    places: Tensor
    size: tuple[int, int]
    fine: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Segmentation:
    """The answer to a prompt: `masks` [M, H, W] bool; `scores` [M], the IoU that the model expects each to have;
    `logits` [M, h, w], of low resolution, one of which may go along with the next prompt as its `mask`."""

    masks: Tensor
    scores: Tensor
    logits: Tensor

    @property
    def best(self) -> int:
        """The number of the mask with the highest score"""
        return int(self.scores.argmax())


@dataclass(frozen=True)
class Segment:
    """One of the masks of everything in a picture: `mask` [H, W] bool; `box` x0 y0 x1 y1 in pixels, x1 and y1
    exclusive; `area` in pixels; `score`, the IoU that the model expects; `stability`, from 0 to 1."""

    mask: Tensor
    box: tuple[int, int, int, int]
    area: int
    score: float
    stability: float

    @property
    def rle(self) -> dict[str, list[int]]:
        """The mask as COCO's uncompressed run lengths"""
        return to_rle(self.mask)


class Segmenter(Family[Sam]):
    """Makes masks of what points, boxes and masks mean in a picture."""

    published: ClassVar[Mapping[str, Any]] = PUBLISHED
    reads: ClassVar[type[PaddedTransform]] = PaddedTransform

    @staticmethod
    def build(config: Config) -> tuple[Sam, Names]:
        encoder, prompts, decoder, names = sam.read(config)
        return Sam(encoder, prompts, decoder), names

    @classmethod
    def fresh(cls, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        """Frequencies and learned tokens begin as loud as what is added to them."""
        family = super().fresh(config, files)
        prompts, decoder = family.model.prompts, family.model.decoder
        for parameter in (prompts.waves, prompts.nowhere, *prompts.kinds, decoder.iou_token, decoder.mask_tokens):
            nn.init.normal_(parameter)
        return family

    def make_processor(self) -> Processor:
        transform = self.reads.from_config(self.checkpoint.image_processor)
        if transform.width != self.model.prompts.image_size:
            raise CheckpointError(
                f"preprocessor_config.json makes pictures of {transform.width} pixels, config.json has the model read "
                f"{self.model.prompts.image_size}"
            )
        return Processor(images=transform)

    @property
    def transform(self) -> PaddedTransform:
        transform = self.processor.images
        assert isinstance(transform, PaddedTransform)
        return transform

    @torch.inference_mode()
    def embed_image(self, image: Image) -> ImageEmbedding:
        """What `segment` accepts in the picture's place, so that further prompts cost the decoder alone."""
        pixels = self.processor.pictures([image]).to(self.device, self.dtype)
        features, fine = self.model.look(pixels)
        return ImageEmbedding(features, self.model.prompts.grid(*features.shape[1:3]), image.pixels.size, fine)

    @torch.inference_mode()
    def segment(
        self,
        image: Image | ImageEmbedding,
        points: Sequence[Point] = (),
        labels: Sequence[int] | None = None,
        boxes: Sequence[Box] | None = None,
        mask: Tensor | None = None,
        several: bool | None = None,
    ) -> Segmentation:
        """Masks of what a prompt means: points, with `labels` 1 on it (the default) and 0 beside it; a box; one of
        the `logits` of an earlier answer; or these together. Several boxes are a prompt each.

        Each prompt has one mask, or `several`, three, by default where it is a single point, which may mean a thing
        or a part of it. Raises InputError for no prompt, a point outside the picture or an empty box.
        """
        seen = image if isinstance(image, ImageEmbedding) else self.embed_image(image)
        at, kinds = as_prompts(seen.size, points, labels, boxes or ())
        if mask is not None:
            side = 4 * seen.features.shape[1]
            if mask.shape != (side, side) or len(at) > 1:
                raise InputError(
                    f"a mask prompt is the logits of one mask, [{side}, {side}], with at most one box; "
                    f"it is {list(mask.shape)} with {len(at)}"
                )
            mask = mask[None].to(self.device, self.dtype)
        elif not at.numel():
            raise InputError("there is no prompt: give points, boxes or a mask, or segment everything")
        if several is None:
            several = len(points) == 1 and not boxes and mask is None
        logits, scores = self._answer(seen, at, kinds, mask, SEVERAL if several else SINGLE)
        logits, scores = logits.flatten(0, 1), scores.flatten()
        masks = self._full(logits, seen.size) > 0
        return Segmentation(masks.cpu(), scores.float().cpu(), logits.float().cpu())

    @torch.inference_mode()
    def segment_everything(
        self,
        image: Image,
        *,
        points_per_side: int | None = None,
        min_score: float | None = None,
        min_stability: float | None = None,
        max_overlap: float = 0.7,
        crop_layers: int = 0,
    ) -> list[Segment]:
        """Masks of all things in a picture, best first.

        A grid of clicks has three masks each; those are kept whose predicted IoU and stability are high enough
        and whose box does not overlap a better one's by more than `max_overlap` (IoU). `crop_layers` = n does the same
        again in 4, 16, ... 4 ** n crops, for what is small; a mask from a smaller crop is taken to be the better.
        The number of clicks and the thresholds are by default those of the configuration's `mask_generation`, or
        the published 32, 0.88 and 0.95. With its `overlap_of = "masks"` masks, not boxes, must not overlap: for models
        that leave stray pixels, which make boxes large.
        """
        side = self._own["points_per_side"] if points_per_side is None else points_per_side
        score = self._own["min_score"] if min_score is None else min_score
        steady = self._own["min_stability"] if min_stability is None else min_stability
        found: list[tuple[Crop, Segment]] = []
        for crop in crops(*image.pixels.size, crop_layers):
            segments = self._everything_in(image, crop, side, score, steady, max_overlap)
            found += [(crop, segment) for segment in segments]
        if crop_layers and found:
            boxes = torch.tensor([segment.box for _, segment in found])
            smallness = torch.tensor([-(x1 - x0) * (y1 - y0) for (x0, y0, x1, y1), _ in found])
            found = [found[i] for i in suppress(box_overlaps(boxes), smallness, max_overlap).tolist()]
        return sorted((segment for _, segment in found), key=lambda segment: -segment.score)

    @property
    def _own(self) -> dict[str, Any]:
        return {**self.published, **self.config.get("mask_generation", {})}

    def _everything_in(
        self, image: Image, crop: Crop, points_per_side: int, min_score: float, min_stability: float, max_overlap: float
    ) -> list[Segment]:
        """Masks, over the whole picture, of the things in a crop of it"""
        picture = image.pixels
        seen = self.embed_image(Image(picture.crop(crop)))
        clicks = point_grid(points_per_side)[:, None] * torch.tensor(seen.size)
        kinds = torch.tensor([[FOREGROUND, NOWHERE]])
        kept: list[tuple[Tensor, ...]] = []  # logits, score, stability and box of a few masks each
        for at in torch.split(F.pad(clicks, (0, 0, 0, 1)), CLICKS):
            logits, scores = self._answer(seen, at, kinds.expand(len(at), -1))
            likely = scores > min_score
            for few in zip(torch.split(logits[likely], MASKS), torch.split(scores[likely], MASKS), strict=True):
                full = self._full(few[0], seen.size)
                steady, boxes = stability(full), boxes_around(full > 0)
                boxes = boxes + boxes.new_tensor(crop[:2] * 2)
                good = (steady > min_stability) & ~cut_off(boxes, crop, *picture.size)
                kept.append((few[0][good], few[1][good], steady[good], boxes[good]))
        if not kept:
            return []
        logits, scores, steady, boxes = (torch.cat(column) for column in zip(*kept, strict=True))
        segments: list[Segment] = []
        x0, y0, x1, y1 = crop
        overlaps = mask_overlaps(logits > 0) if self._own["overlap_of"] == "masks" else box_overlaps(boxes)
        for some in torch.split(suppress(overlaps, scores, max_overlap), MASKS):
            masks = torch.zeros(len(some), picture.height, picture.width, dtype=torch.bool)
            masks[:, y0:y1, x0:x1] = self._full(logits[some], seen.size) > 0
            about = zip(masks, boxes[some].tolist(), scores[some].tolist(), steady[some].tolist(), strict=True)
            segments += [Segment(mask, tuple(box), int(mask.sum()), *told) for mask, box, *told in about]
        return segments

    def _answer(
        self, seen: ImageEmbedding, at: Tensor, kinds: Tensor, mask: Tensor | None = None, which: slice = SEVERAL
    ) -> tuple[Tensor, Tensor]:
        """Points of a picture [P, Q, 2] and their kinds [P, Q] -> logits [P, M, h, w], scores [P, M]"""
        scale = torch.tensor(self.transform.fitted(*seen.size), dtype=torch.float64) / torch.tensor(seen.size)
        at, kinds = (at * scale).to(self.device, torch.float32), kinds.to(self.device)
        few = FEW if self.device.type == "cpu" else len(at)
        answers = [
            self.model.decode(seen.features, *some, mask, which, seen.places, seen.fine)
            for some in zip(torch.split(at, few), torch.split(kinds, few), strict=True)
        ]
        logits, scores = (torch.cat(part) for part in zip(*answers, strict=True))
        return logits, scores

    def _full(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks of low resolution [M, h, w] over the picture [M, H, W]; what was padded is cut off."""
        (width, height), (fit_width, fit_height) = size, self.transform.fitted(*size)
        rows = stretch(logits.shape[1], self.transform.height, fit_height, height)
        cols = stretch(logits.shape[2], self.transform.width, fit_width, width)
        return rows.to(self.device) @ logits.float() @ cols.T.to(self.device)


class Segmenter2(Segmenter):
    """Makes masks as `Segmenter` does, with SAM 2."""

    published: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "min_score": 0.8}
    reads: ClassVar[type[PaddedTransform]] = StretchedTransform

    @staticmethod
    def build(config: Config) -> tuple[Sam2, Names]:
        encoder, prompts, decoder, names = sam2.read(config)
        return Sam2(encoder, prompts, decoder), names

    def _full(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks of low resolution [M, h, w] over the picture [M, H, W], stretched once"""
        cols, rows = (stretch(low, low, low, full) for low, full in zip(logits.shape[:0:-1], size, strict=True))
        return rows.to(self.device) @ logits.float() @ cols.T.to(self.device)


@lru_cache(maxsize=8)
def stretch(low: int, padded: int, fitted: int, full: int) -> Tensor:
    """Linear interpolation from `low` pixels to `padded`, of which the first `fitted` are stretched to `full`, as one
    matrix [full, low]; bilinear interpolation is one such product over the rows and one over the columns."""
    padded_line = F.interpolate(torch.eye(low)[None], padded, mode="linear")
    return F.interpolate(padded_line[..., :fitted], full, mode="linear")[0].T
