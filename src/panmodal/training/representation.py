"""What BLIP-2's Q-Former learns first, from pairs of picture and text, before any language model (Li et al., 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.cache import Source
from panmodal.data.processor import IGNORED
from panmodal.data.sample import Batch
from panmodal.families.blip2_retrieval import Blip2Matcher
from panmodal.training.losses import contrastive_loss, hard_negatives, next_token_loss
from panmodal.training.world import gathered, mean_of_all, own_part

TEMPERATURE = 0.07  # of the contrast; published checkpoints have no place for a learned one


def representation_loss(model: Blip2Matcher, batch: Batch) -> Tensor:
    """The sum of three losses over a batch of pairs, each with its own mask (`sight_mask`):

    - contrast: the query nearest to a text stands for its picture;
    - matching: pairs told from pictures with wrong texts and texts with wrong pictures, each wrong one drawn
      from the batch, the likelier the more alike the contrast finds the two (hard negatives);
    - image-grounded generation: the text said word by word from the queries, which the word embedding scores.
    """
    assert batch.images is not None
    ids, pad, queries, rows = batch.ids, batch.real, len(model.qformer.queries), len(batch.ids)
    source = Source(model.encoder(batch.images))
    hidden = model.qformer(source, ids, pad, "unimodal")
    images, texts = model.project_images(hidden[:, :queries]), model.project_texts(hidden[:, queries:])
    logits = model.similarity(gathered(images), gathered(texts)).float() / TEMPERATURE
    hidden = model.qformer(source, ids, pad, "causal")[:, queries:]
    words = int(pad[:, 1:].sum())
    said = words * next_token_loss(hidden, ids.masked_fill(~pad, IGNORED), model.qformer.logits)
    every = gathered(ids.masked_fill(~pad, -1))  # of all processes
    alike = (every[:, None] == every).all(dim=-1)  # one text may fit several pictures
    seen = Source(gathered(source.vectors, alike=False))
    judged = matching_losses(model, seen, every.clamp(min=0), every >= 0, logits, alike)
    return (
        contrastive_loss(logits, alike) + mean_of_all(judged.sum(), len(judged), rows) + mean_of_all(said, words, rows)
    )


def matching_losses(
    model: Blip2Matcher, source: Source, ids: Tensor, pad: Tensor, logits: Tensor, alike: Tensor
) -> Tensor:
    """logits [N, N], pictures by texts, by which the wrong ones are drawn, never one that is `alike` -> the losses of
    those of the pairs that are this process's to judge"""
    every = torch.arange(len(ids), device=ids.device)
    for_text, hard_picture = hard_negatives(logits.detach().T, alike.T)
    for_picture, hard_text = hard_negatives(logits.detach(), alike)
    picture, text = torch.cat([every, for_picture, hard_picture]), torch.cat([every, hard_text, for_text])
    own = own_part(len(text), ids.device)
    picture, text = picture[own], text[own]
    judged = model.match(Source(source.vectors[picture]), ids[text], pad[text])
    return F.cross_entropy(judged.float(), (own < len(ids)).long(), reduction="none")
