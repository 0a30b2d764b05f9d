"""ImageBind's objective: every other medium against the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from panmodal.data.media import Medium
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Sample
from panmodal.errors import InputError
from panmodal.training.losses import contrastive_loss
from panmodal.training.world import gathered

Bound = Mapping[str, Medium | str]  # by kind, a picture among them


@dataclass(frozen=True)
class Anchored:
    """InfoNCE of each other medium of a sample, and its last text, against the picture, and of none against another
    (Girdhar et al., 2023): what two of them share they learn from the pictures alone.

    The samples of a batch have all the same kinds. Media that are the same fit one another's pictures.
    """

    def encode(self, processor: Processor, sample: Sample) -> Bound:
        bound: dict[str, Medium | str] = {medium.kind: medium for medium in sample.media}
        if sample.messages[-1].text:
            bound["text"] = sample.messages[-1].text
        if "image" not in bound or "video" in bound or len(bound) < 2 or len(bound) < len(sample.media):
            raise InputError(
                "a sample to bind has one picture, and one medium of each other kind, or a text; videos are not "
                "bound, for they have the pictures' own tower"
            )
        for medium in sample.media:
            medium.check()  # decoded here, so that a broken file is found here
        return bound

    def length(self, encoded: Bound) -> int:
        return 0

    def batch(self, processor: Processor, encoded: Sequence[Bound]) -> Batch:
        kinds = encoded[0].keys()
        if any(bound.keys() != kinds for bound in encoded):
            raise InputError(
                "the samples of a batch differ in their kinds of media; give each mixture a stage of its own"
            )
        made: dict[str, Any] = {
            kind: processor.medium(kind, [bound[kind] for bound in encoded])  # type: ignore[misc]
            for kind in kinds
            if kind != "text"
        }
        texts = Batch(torch.empty(len(encoded), 0, dtype=torch.long))
        if "text" in kinds:
            texts = processor.texts([str(bound["text"]) for bound in encoded], truncate=True)
            made["text"] = texts.ids
        return Batch(texts.ids, texts.pad, images=made.pop("image"), media=made)

    def weight(self, batch: Batch) -> int:
        return len(batch.ids)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        anchor, losses = gathered(model.embed("image", batch.images)), []
        for kind, x in batch.media.items():
            logits = model.scale(kind) * anchor @ gathered(model.embed(kind, x, batch.pad)).T
            shown = x.masked_fill(~batch.real, -1) if kind == "text" else x
            losses.append(contrastive_loss(logits.float(), _alike(gathered(shown))))
        return torch.stack(losses).mean()


def _alike(x: Tensor) -> Tensor:
    """Which of a batch are the same, [N, N]"""
    numbers: Tensor = torch.unique(x.flatten(1), dim=0, return_inverse=True)[1]
    return numbers[:, None] == numbers
