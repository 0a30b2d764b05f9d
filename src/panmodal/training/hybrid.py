"""BLIP's objectives (Li et al., 2022): pictures and texts told apart, matched, and captions said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.data.processor import IGNORED, Processor
from panmodal.data.sample import Batch, Image, Sample
from panmodal.errors import InputError
from panmodal.families.blip import Blip
from panmodal.training.losses import contrastive_loss, hard_negatives, next_token_loss
from panmodal.training.world import gathered, mean_of_all, own_part


@dataclass(frozen=True)
class Hybrid:
    """The sum of BLIP's three losses, each picture encoded once; or, with `captions`, of the last alone.

    - Contrast: the picture and the last words of each sample, against those of the others.
    - Matching: whether a text fits a picture. Beside the true pairs stand hard ones: for each picture a text
      and for each text a picture of the batch, drawn by how alike the contrast finds them (ALBEF, Li et al.,
      2021), and, if every sample has one, its `near_miss`, a text of as many tokens that all but fits its picture,
      of which each word is judged, too.
    - Captioning: the words, each after those before it, in sight of the picture.
    """

    captions: bool = False

    def encode(self, processor: Processor, sample: Sample) -> tuple[Image, str, str]:
        if not sample.images or not sample.messages[-1].text:
            raise InputError("a pair needs a picture and, last, a text")
        sample.images[0].check()  # decoded here, so that a broken file is found here
        return sample.images[0], sample.messages[-1].text, str(sample.about.get("near_miss", ""))

    def length(self, encoded: tuple[Image, str, str]) -> int:
        return 0

    def batch(self, processor: Processor, encoded: Sequence[tuple[Image, str, str]]) -> Batch:
        """The texts are the captions, and then the near misses"""
        images, captions, misses = zip(*encoded, strict=True)
        texts = processor.texts([*captions, *(misses if all(misses) else ())], truncate=True)
        return Batch(texts.ids, texts.real, images=processor.pictures(images))

    def weight(self, batch: Batch) -> int:
        assert batch.images is not None
        return len(batch.images)

    def loss(self, model: Blip, batch: Batch) -> Tensor:
        layout = model.layout
        if not (layout.caption and (self.captions or (layout.match and layout.scale))):
            raise InputError(
                "the model lacks a part that this objective trains; its architecture must be BlipForPreTraining"
            )
        assert batch.images is not None
        assert batch.pad is not None
        pairs = Batch(batch.ids[: len(batch.images)], batch.pad[: len(batch.images)])
        tokens = model.image(batch.images)  # [N, P, D]
        said = captioning_loss(model, tokens, pairs)
        if self.captions:
            return said
        logits = model.logits(gathered(model.embed_tokens(tokens)), gathered(_embed_texts(model, pairs))).float()
        ids = gathered(pairs.ids.masked_fill(~pairs.real, -1))
        alike = (ids[:, None] == ids).all(-1)  # one text may fit several pictures
        return contrastive_loss(logits, alike) + matching_loss(model, tokens, batch, logits.detach(), alike) + said


def _embed_texts(model: Blip, pairs: Batch) -> Tensor:
    """-> [N, dim]"""
    rows, vectors = zip(*((rows, model.embed_texts(ids, pad)) for rows, ids, pad in pairs.by_length()), strict=True)
    return torch.cat(vectors)[torch.cat(rows).argsort()]


def captioning_loss(model: Blip, tokens: Tensor, pairs: Batch) -> Tensor:
    """Image tokens [N, P, D] and a caption for each -> the mean over all words"""
    assert model.decoder is not None
    losses, words = [], 0
    for rows, ids, pad in pairs.by_length():
        started = torch.cat([torch.full_like(ids[:, :1], model.start), ids[:, 1:]], dim=1)
        hidden = model.decoder.hidden(started, source=Source(tokens[rows]))  # words do not look at padding after them
        count = int(pad[:, 1:].sum())
        losses.append(count * next_token_loss(hidden, ids.masked_fill(~pad, IGNORED), model.decoder.logits))
        words += count
    return mean_of_all(torch.stack(losses).sum(), words, len(tokens))


def matching_loss(model: Blip, tokens: Tensor, batch: Batch, logits: Tensor, alike: Tensor) -> Tensor:
    """Of this process image tokens [n, P, D], n captions and perhaps n near misses, and of all how alike the contrast
    finds their N by N -> true pairs count as much as all others, near misses as much as those drawn; and `words_loss`.
    Each process judges its part of all pairs."""
    assert model.text is not None
    rows, ids = len(tokens), batch.ids.masked_fill(~batch.real, -1)
    captions, missed, tokens = gathered(ids[:rows]), gathered(ids[rows:]), gathered(tokens, alike=False)
    ids = torch.cat([captions, missed]) if len(missed) == len(captions) else captions
    every = torch.arange(len(captions), device=ids.device)
    misses = every[: len(ids) - len(every)]
    for_image, hard_text = hard_negatives(logits, alike)
    for_text, hard_image = hard_negatives(logits.T, alike.T)
    pictures = torch.cat([every, for_image, hard_image, misses])
    texts = torch.cat([every, hard_text, for_text, len(every) + misses])
    sizes = torch.tensor([len(every), len(for_image) + len(hard_image), len(misses)], device=ids.device)
    kind = torch.arange(3, device=ids.device).repeat_interleave(sizes)  # true, drawn, a near miss
    own = own_part(len(texts), ids.device)
    pictures, texts, kind = pictures[own], texts[own], kind[own]
    near = (texts >= len(every)) | (texts == pictures)
    judged, order, words, wrong = [], [], [], []
    with inputs(model.text.body.blocks[-1]) as states:
        for some, read, pad in Batch(ids[texts].clamp(min=0), ids[texts] >= 0).by_length():
            judged.append(model.match(Source(tokens[pictures[some]]), read, pad))
            order.append(some)
            counted = pad & near[some, None]
            words.append(states.pop()[counted])
            wrong.append((read != ids[pictures[some], : read.shape[1]])[counted])
    found = torch.cat(judged)[torch.cat(order).argsort()].float()
    losses = F.cross_entropy(found, (kind == 0).long(), reduction="none")
    true, *others = (
        mean_of_all(losses[kind == i].sum(), int((kind == i).sum()), rows) for i, size in enumerate(sizes) if size
    )
    loss = (true + torch.stack(others).mean()) / 2 if others else true
    return loss + words_loss(model, torch.cat(words), torch.cat(wrong), rows) if len(misses) else loss


def words_loss(model: Blip, states: Tensor, wrong: Tensor, rows: int) -> Tensor:
    """The words of captions and of near misses, as the last block finds them, [W, D], judged by the head that judges
    texts: whether each is the `wrong` one [W] (after replaced token detection, Clark et al., 2020). One bit for a
    whole text hardly teaches which word to look up where; the block then gathers what the words tell."""
    losses = F.cross_entropy(model.match_head(states).float(), (~wrong).long(), reduction="none")
    means = [mean_of_all(losses[which].sum(), int(which.sum()), rows) for which in (wrong, ~wrong)]
    return torch.stack(means).mean()


@contextmanager
def inputs(block: nn.Module) -> Iterator[list[Tensor]]:
    """What the block is given, call by call"""
    seen: list[Tensor] = []
    hook = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        hook.remove()
