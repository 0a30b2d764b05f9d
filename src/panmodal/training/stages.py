"""Stages: what is learned, from what, and at which rate by part. A part without a rate is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from panmodal.data.processor import IGNORED, Encoded, Processor, pad_rows
from panmodal.data.sample import Batch, Image, Sample
from panmodal.embeddings import CONVERSATION
from panmodal.errors import InputError, suggest
from panmodal.language import logits_of
from panmodal.training.anchored import Anchored
from panmodal.training.hybrid import Hybrid
from panmodal.training.losses import contrastive_loss, next_token_loss, sigmoid_loss
from panmodal.training.masks import Masks
from panmodal.training.representation import representation_loss


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    `rates` gives each part of the model its peak learning rate; "all" stands for the parts not
    named. The rate rises over the first `warmup` of the steps and falls along a cosine to
    `final` of its peak. A step learns from `batch` samples, `accumulate` times.
    """

    name: str
    objective: str
    data: str
    rates: Mapping[str, float]
    steps: int
    batch: int
    accumulate: int = 1
    warmup: float = 0.03
    final: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # auto: bfloat16 where it is fast
    ema: float = 0.0  # 0: none; else the decay of an average of the weights, which is kept at the end
    pack: bool | int = False  # conversations share rows of so many tokens; true: of the model's context

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"unknown objective {self.objective!r}{suggest(self.objective, OBJECTIVES)}")
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"stage {self.name!r}: {name} is {getattr(self, name)}; it must be at least 1")
        if self.pack and not hasattr(OBJECTIVES[self.objective], "packed"):
            packing = [name for name, objective in OBJECTIVES.items() if hasattr(objective, "packed")]
            raise InputError(f"stage {self.name!r}: {self.objective!r} packs nothing; {', '.join(packing)} do")


# A recipe may name one as `kind`: the two stages of LLaVA (Liu et al., 2023), with LLaVA-1.5's rates; those of BLIP-2
# (Li et al., 2023), the first without a language model; and those of MiniGPT-4 (Zhu et al., 2023).
PRESETS: dict[str, dict[str, Any]] = {
    "align": {"objective": "answers", "rates": {"connector": 1e-3}},
    "instruct": {"objective": "answers", "rates": {"connector": 2e-5, "language": 2e-5}},
    "represent": {
        "objective": "representation",
        "rates": {"qformer": 1e-4, "image_projection": 1e-4, "text_projection": 1e-4, "match_head": 1e-4},
        "weight_decay": 0.05,
    },
    "generate": {"objective": "answers", "rates": {"qformer": 1e-4, "connector": 1e-4}, "weight_decay": 0.05},
    "minigpt4-align": {"objective": "answers", "rates": {"connector": 1e-4}, "final": 0.8, "weight_decay": 0.05},
    "minigpt4-instruct": {"objective": "answers", "rates": {"connector": 3e-5}, "final": 0.33, "weight_decay": 0.05},
}


class Objective(Protocol):
    """How samples become a batch, and a batch a loss."""

    def encode(self, processor: Processor, sample: Sample) -> Any:
        """One sample, checked and decoded; raises InputError if it cannot be used."""

    def length(self, encoded: Any) -> int:
        """Samples of a step that are alike in this share a batch."""
        return 0  # the order is kept

    def batch(self, processor: Processor, encoded: Sequence[Any]) -> Batch: ...

    def weight(self, batch: Batch) -> int:
        """How many things the loss is the mean of, so that unequal batches count fairly together."""

    def loss(self, model: Any, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class Pairs(Objective):
    """The first picture and the last words of each sample, against those of the others."""

    sigmoid: bool

    def encode(self, processor: Processor, sample: Sample) -> tuple[Image, str]:
        if not sample.images or not sample.messages[-1].text:
            raise InputError("a pair needs a picture and, last, a text")
        sample.images[0].check()  # decoded here, so that a broken file is found here
        return sample.images[0], sample.messages[-1].text

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
        logits = model.logits(images, torch.cat([vectors for _, vectors in texts])[order]).float()
        alike = (batch.ids[:, None] == batch.ids).all(-1)  # one text may fit several pictures
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
        assert batch.pad is not None
        images = len(batch.images)
        pairs = Batch(batch.ids[:images], batch.pad[:images])
        tokens = model.image(batch.images)
        seen = model.image.pool(tokens)  # [N, D]
        told = self.contrast(model, model.image_projection(seen), self.texts(model, pairs), pairs)
        seen = torch.cat([seen, _in_boxes(model, tokens, batch, points=True)])
        return told + captioning_loss(model, seen[:, None], batch)


@dataclass(frozen=True)
class Representation(Pairs):
    """Pairs told apart, judged and said, by one Q-Former: the first stage of BLIP-2."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return representation_loss(model, batch)


@dataclass(frozen=True)
class Regions(Objective):
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

    def batch(self, processor: Processor, encoded: Sequence[Any]) -> Batch:
        return _with_boxes(processor, [], encoded)

    def weight(self, batch: Batch) -> int:
        return len(batch.ids)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return captioning_loss(model, _in_boxes(model, model.image(batch.images), batch, self.points)[:, None], batch)


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
        off = (torch.rand_like(low) - 0.5) * 0.75
        x, y = (((low + high) / 2 + off * (high - low)) * grid).long().clamp(0, grid - 1).T
        return patches[picture, y * grid + x]
    edges = torch.arange(grid + 1, device=tokens.device) / grid
    covered = torch.minimum(high[..., None], edges[1:]) - torch.maximum(low[..., None], edges[:-1])
    across, down = covered.clamp(min=0).unbind(dim=1)  # [R, grid]
    share = (down[:, :, None] * across[:, None]).flatten(1)  # [R, grid ** 2]
    share = share / share.sum(dim=1, keepdim=True)
    return torch.einsum("rp,rpd->rd", share.to(tokens.dtype), patches[picture])


def captioning_loss(model: Any, seen: Tensor, batch: Batch) -> Tensor:
    """The text tower, which must be causal, says each text word by word after the image vectors `seen`
    [N, P, D]; its own embedding gives the logits."""
    said, words = [], 0
    for rows, ids, pad in batch.by_length():
        x = torch.cat([seen[rows], model.text.embed(ids)], dim=1)
        hidden = model.text.body(x, torch.cat([pad.new_ones(len(rows), seen.shape[1]), pad], dim=1))
        labels, count = ids.masked_fill(~pad, IGNORED), int(pad[:, 1:].sum())
        said.append(count * next_token_loss(hidden[:, seen.shape[1] :], labels, model.text.logits))
        words += count
    return torch.stack(said).sum() / words


@dataclass(frozen=True)
class NextToken:
    """The tokens that the assistant says, or, with `everything`, all of them.

    With `apart`, a turn after the last picture sees what comes up to it and itself, and no other turn: as
    many conversations of one question as there are, for the price of one picture.
    """

    everything: bool = False
    apart: bool = False

    def encode(self, processor: Processor, sample: Sample) -> Encoded:
        encoded = processor.encode(sample.messages)
        for medium in encoded.media:
            medium.check()
        if self.everything:
            return replace(encoded, learned=[i not in processor.placeholders for i in encoded.ids])
        if not any(encoded.learned):
            raise InputError("the assistant says nothing in this conversation: there is nothing to learn")
        return encoded

    def length(self, encoded: Encoded) -> int:
        return len(encoded.ids)

    def batch(self, processor: Processor, encoded: Sequence[Encoded]) -> Batch:
        batch = processor.batch(encoded)
        if not self.apart:
            return batch
        turns = pad_rows([_turns(e, processor.placeholders) for e in encoded], 0).ids
        return replace(batch, pad=turns)

    def packed(self, processor: Processor, encoded: Sequence[Encoded]) -> Batch:
        """Conversations one after another in one row, each blind to the others and with positions of its own, all
        their pictures in one batch: the loss is that of `batch`, without padding.

        What attention may see is a mask [1, 1, T, T], which on GPUs keeps it from the fastest kernels; rows of up
        to some thousand tokens are all the same cheaper than padding.
        """
        if len(encoded) == 1:
            return self.batch(processor, encoded)
        row = Encoded([], [], [], [], [])
        numbers: list[int] = []
        for i, one in enumerate(encoded):
            turns = _turns(one, processor.placeholders) if self.apart else [1] * len(one.ids)
            numbers += [i * CONVERSATION + turn for turn in turns]
            row.ids.extend(one.ids)
            row.learned.extend([False, *one.learned[1:]])  # nothing of it comes before its first token
            row.media.extend(one.media)
            row.vectors.extend(one.vectors)
            row.sizes.extend(one.sizes)
        return replace(processor.batch([row]), pad=torch.tensor([numbers]))

    def weight(self, batch: Batch) -> int:
        assert batch.labels is not None
        return int((batch.labels[:, 1:] != IGNORED).sum())

    def loss(self, model: Any, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return next_token_loss(model.read(batch), batch.labels, logits_of(model))


def _turns(encoded: Encoded, placeholders: set[int]) -> list[int]:
    """1 up to the last picture or video, or for the first token; then, from 2 on, the number of the turn that a token
    is in"""
    shared = max((i for i, token in enumerate(encoded.ids) if token in placeholders), default=0) + 1
    turns, turn = [1] * shared, 2
    for before, learned in pairwise(encoded.learned[shared - 1 :]):
        turn += before and not learned
        turns.append(turn)
    return turns


OBJECTIVES: dict[str, Objective] = {
    "contrastive": Pairs(sigmoid=False),
    "sigmoid": Pairs(sigmoid=True),
    "contrastive_captioning": CaptionedPairs(sigmoid=False),
    "representation": Representation(sigmoid=False),
    "regions": Regions(),
    "points": Regions(points=True),
    "blip": Hybrid(),
    "captions": Hybrid(captions=True),
    "answers": NextToken(),
    "separate_answers": NextToken(apart=True),
    "text": NextToken(everything=True),
    "anchored": Anchored(),
    "masks": Masks(),
}


def parameter_groups(model: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """The trained parameters with their peak rates for AdamW; freezes the others.

    Norms, biases and single numbers do not decay. Raises InputError for a part the model lacks.
    """
    rates: dict[str, float] = {}
    for name, _ in model.named_parameters():
        parts = [part for part in stage.rates if name == part or name.startswith(part + ".")]
        rate = stage.rates[max(parts, key=len)] if parts else stage.rates.get("all", 0.0)
        if rate:
            rates[name] = rate
    for part in stage.rates:
        if part != "all" and not any(n == part or n.startswith(part + ".") for n, _ in model.named_parameters()):
            raise InputError(
                f"stage {stage.name!r} gives a rate to {part!r}, which the model lacks"
                + suggest(part, {n.split(".")[0] for n, _ in model.named_parameters()})
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in rates)
        if name in rates:
            decay = stage.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates[name], decay), []).append(parameter)
    return [{"params": ps, "peak": rate, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]
