"""BLIP's objectives (Li et al., 2022): pictures and texts told apart, matched, captions said; questions answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

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
        said = saying_loss(model, Source(tokens), pairs)
        if self.captions:
            return said
        logits = model.logits(gathered(model.embed_tokens(tokens)), gathered(_embed_texts(model, pairs))).float()
        ids = gathered(pairs.ids.masked_fill(~pairs.real, -1))
        alike = (ids[:, None] == ids).all(-1)  # one text may fit several pictures
        return contrastive_loss(logits, alike) + matching_loss(model, tokens, batch, logits.detach(), alike) + said


@dataclass(frozen=True)
class Answering:
    """Questions about a picture and their answers (BLIP, section 5.3): the words of an answer, each after those before
    it, in sight of the question as it was read beside the picture. A sample is a picture, encoded once, and as many
    turns as there are, none in sight of another."""

    def encode(self, processor: Processor, sample: Sample) -> tuple[Image, list[str], list[str]]:
        roles, pictures = [m.role for m in sample.messages], sample.images
        if len(pictures) != 1 or not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise InputError(
                f"what BLIP learns to answer are questions about one picture, each with its answer; these are "
                f"{len(pictures)} pictures and messages of {', '.join(roles) or 'nobody'}"
            )
        pictures[0].check()
        texts = [m.text for m in sample.messages]
        processor.texts(texts)  # none is too long
        return pictures[0], texts[::2], texts[1::2]

    def length(self, encoded: tuple[Image, list[str], list[str]]) -> int:
        return 0

    def batch(self, processor: Processor, encoded: Sequence[tuple[Image, list[str], list[str]]]) -> Batch:
        """The texts are the answers, `instructions` the questions, and `regions` tell of which picture each is"""
        images, asked, said = zip(*encoded, strict=True)
        questions, answers = processor.texts(list(chain(*asked))), processor.texts(list(chain(*said)))
        about = [[number, 0.0, 0.0, 1.0, 1.0] for number, several in enumerate(asked) for _ in several]
        pictures = processor.pictures(images)
        return replace(answers, images=pictures, regions=torch.tensor(about), instructions=questions)

    def weight(self, batch: Batch) -> int:
        return len(batch.ids)

    def loss(self, model: Blip, batch: Batch) -> Tensor:
        if not model.layout.answer:
            raise InputError("the model does not answer; its architecture must be BlipForQuestionAnswering")
        assert batch.images is not None
        assert batch.regions is not None
        questions, tokens = batch.instructions, model.image(batch.images)[batch.regions[:, 0].long()]  # [N, P, D]
        assert questions is not None
        return saying_loss(model, model.read(Source(tokens), questions.ids, questions.real), batch)


def _embed_texts(model: Blip, pairs: Batch) -> Tensor:
    """-> [N, dim]"""
    rows, vectors = zip(*((rows, model.embed_texts(ids, pad)) for rows, ids, pad in pairs.by_length()), strict=True)
    return torch.cat(vectors)[torch.cat(rows).argsort()]


def saying_loss(model: Blip, source: Source, texts: Batch) -> Tensor:
    """What is looked at, of N rows, and a text for each -> the mean over all words"""
    assert model.decoder is not None
    losses, words = [], 0
    for rows, ids, pad in texts.by_length():
        started = torch.cat([torch.full_like(ids[:, :1], model.start), ids[:, 1:]], dim=1)
        seen = Source(source.vectors[rows], None if source.mask is None else source.mask[rows])
        hidden = model.decoder.hidden(started, source=seen)  # words do not look at padding after them
        count = int(pad[:, 1:].sum())
        losses.append(count * next_token_loss(hidden, ids.masked_fill(~pad, IGNORED), model.decoder.logits))
        words += count
    return mean_of_all(torch.stack(losses).sum(), words, len(texts.ids))


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
