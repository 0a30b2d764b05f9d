"""Objectives of pictures and texts that belong together, and of the objects in a picture and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from panmodal.data.processor import IGNORED, Processor
from panmodal.data.sample import Batch, Image, Sample
from panmodal.errors import InputError
from panmodal.training.losses import contrastive_loss, next_token_loss, sigmoid_loss
from panmodal.training.representation import representation_loss
from panmodal.training.world import drawn, gathered, mean_of_all


@dataclass(frozen=True)
class Pairs:
    """The first picture and the last words of each sample, against those of the others."""

    sigmoid: bool

    def encode(self, processor: Processor, sample: Sample) -> tuple[Image, str]:
        if not sample.images or not sample.messages[-1].text:
            raise InputError("a pair needs a picture and, last, a text")
        sample.images[0].check()  # decoded here, so that a broken file is found here
        return sample.images[0], sample.messages[-1].text

    def length(self, encoded: Any) -> int:
        return 0

    def batch(self, processor: Processor, encoded: Sequence[tuple[Image, str]]) -> Batch:
        texts = processor.texts([text for _, text in encoded], truncate=True)
        return Batch(texts.ids, texts.pad, images=processor.pictures([image for image, _ in encoded]))

    def weight(self, batch: Batch) -> int:
        return len(batch.ids)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self.contrast(model, model.embed_images(batch.images), self.texts(model, batch), batch)

    def texts(self, model: Any, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Some rows, and their embeddings, for all rows of the batch"""
        return [(rows, model.embed_texts(ids, pad)) for rows, ids, pad in batch.by_length()]

    def contrast(self, model: Any, images: Tensor, texts: list[tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
        """images [N, dim]; texts: some rows, and their embeddings"""
        order = torch.cat([rows for rows, _ in texts]).argsort()
        told = gathered(torch.cat([vectors for _, vectors in texts])[order])
        logits = model.logits(gathered(images), told).float()
        ids = gathered(batch.ids.masked_fill(~batch.real, -1))
        alike = (ids[:, None] == ids).all(-1)  # one text may fit several pictures
        return sigmoid_loss(logits, alike) if self.sigmoid else contrastive_loss(logits, alike)


@dataclass(frozen=True)
class CaptionedPairs(Pairs):
    """Pairs told apart, and captions said: CLIP's loss and a captioner's (CoCa, Yu et al., 2022).

    The text tower says the captions, so that no weight is added, and sees the pooled vector alone:
    every word of a caption then teaches it what from the contrast alone it learns slowly. Where the
    samples list `objects`, it says these too, as in `Regions`, so that the image tokens forget nothing.
    """

    def encode(self, processor: Processor, sample: Sample) -> Any:
        return *super().encode(processor, sample), _boxes(processor, sample)

    def batch(self, processor: Processor, encoded: Sequence[Any]) -> Batch:
        captions = [caption for _, caption, _ in encoded]
        return _with_boxes(processor, captions, [(image, found) for image, _, found in encoded])

    def weight(self, batch: Batch) -> int:
        assert batch.images is not None
        return len(batch.images)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        assert batch.images is not None
        images = len(batch.images)
        pairs = Batch(batch.ids[:images], batch.real[:images])
        tokens = model.image(batch.images)
        seen = model.image.pool(tokens)  # [N, D]
        told = self.contrast(model, model.image_projection(seen), self.texts(model, pairs), pairs)
        seen = torch.cat([seen, _in_boxes(model, tokens, batch, points=True)])
        return told + captioning_loss(model, seen[:, None], batch, images)


@dataclass(frozen=True)
class Representation(Pairs):
    """Pairs told apart, judged and said, by one Q-Former: the first stage of BLIP-2."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return representation_loss(model, batch)


@dataclass(frozen=True)
class Regions:
    """Objects in their boxes named (dense captioning, Johnson et al., 2016).

    A sample's `objects` each have a `box` (x0 y0 x1 y1 in pixels) and a `phrase`, which the text tower
    says after the mean of the image tokens that the box covers. The mean is learned from soon, but may
    leave every token with a part of the answer; with `points`, one token, drawn from the box's inner three
    quarters, must know it all, so that whoever looks there finds it (after objects as points, Zhou et al., 2019).
    """

    points: bool = False

    def encode(self, processor: Processor, sample: Sample) -> Any:
        found = _boxes(processor, sample)
        if not sample.images or not found:
            raise InputError("a sample of regions needs a picture, and objects with a box and a phrase")
        return sample.images[0], found

    def length(self, encoded: Any) -> int:
        return 0

    def batch(self, processor: Processor, encoded: Sequence[Any]) -> Batch:
        return _with_boxes(processor, [], encoded)

    def weight(self, batch: Batch) -> int:
        return len(batch.ids)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        seen = _in_boxes(model, model.image(batch.images), batch, self.points)
        return captioning_loss(model, seen[:, None], batch, len(batch.ids))


Box = list[float]  # x0 y0 x1 y1, from 0 to 1


def _boxes(processor: Processor, sample: Sample) -> list[tuple[Box, str]]:
    """The objects that a sample lists: their boxes and phrases"""
    objects = sample.about.get("objects", ())
    if objects and processor.images.shortest is not None:
        raise InputError(
            "this model crops its pictures, so that boxes may fall outside: regions need one that does not"
        )
    try:
        width, height = sample.images[0].pixels.size if objects else (1, 1)
        return [
            ([x0 / width, y0 / height, x1 / width, y1 / height], str(o["phrase"]))
            for o in objects
            for x0, y0, x1, y1 in [o["box"]]
        ]
    except (IndexError, KeyError, TypeError, ValueError):
        raise InputError("an object needs a picture, a box of four numbers and a phrase") from None


def _with_boxes(
    processor: Processor, captions: Sequence[str], found: Sequence[tuple[Image, list[tuple[Box, str]]]]
) -> Batch:
    """The captions, if any, one for each picture; then the phrases, one for each box"""
    phrases = [phrase for _, objects in found for _, phrase in objects]
    texts = processor.texts([*captions, *phrases], truncate=True)
    boxes = [[float(i), *box] for i, (_, objects) in enumerate(found) for box, _ in objects]
    pictures = processor.pictures([image for image, _ in found])
    return Batch(texts.ids, texts.pad, images=pictures, regions=torch.tensor(boxes).view(-1, 5))


def _in_boxes(model: Any, tokens: Tensor, batch: Batch, points: bool) -> Tensor:
    """tokens [N, P, D] -> for each box one of its inner three quarters, or the mean of those it covers [R, D]"""
    assert batch.regions is not None
    grid = model.image.embed.grid
    patches = tokens[:, -(grid**2) :]  # without the class token
    picture, low, high = batch.regions[:, 0].long(), batch.regions[:, 1:3], batch.regions[:, 3:5]
    if points:
        off = (drawn(torch.rand, low) - 0.5) * 0.75
        x, y = (((low + high) / 2 + off * (high - low)) * grid).long().clamp(0, grid - 1).T
        return patches[picture, y * grid + x]
    edges = torch.arange(grid + 1, device=tokens.device) / grid
    covered = torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])
    across, down = covered.clamp(min=0).unbind(dim=1)  # [R, grid]
    share = (down[:, :, None] * across[:, None]).flatten(1)  # [R, grid ** 2]
    share = share / share.sum(dim=1, keepdim=True)
    return torch.einsum("rp,rpd->rd", share.to(tokens.dtype), patches[picture])


def captioning_loss(model: Any, seen: Tensor, batch: Batch, rows: int) -> Tensor:
    """The text tower, which must be causal, says each text word by word after the image vectors `seen`
    [N, P, D]; its own embedding gives the logits. `rows`: see `mean_of_all`."""
    said, words = [], 0
    for some, ids, pad in batch.by_length():
        x = torch.cat([seen[some], model.text.embed(ids)], dim=1)
        hidden = model.text.body(x, torch.cat([pad.new_ones(len(some), seen.shape[1]), pad], dim=1))
        labels, count = ids.masked_fill(~pad, IGNORED), int(pad[:, 1:].sum())
        said.append(count * next_token_loss(hidden[:, seen.shape[1] :], labels, model.text.logits))
        words += count
    return mean_of_all(torch.stack(said).sum(), words, rows)
