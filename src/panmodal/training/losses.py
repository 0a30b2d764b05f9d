"""Losses: contrastive, sigmoid, next token, and of masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.processor import IGNORED

EVENLY = 0.25  # of hard negatives


def contrastive_loss(logits: Tensor, alike: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy over a batch of pairs (CLIP, Radford et al., 2021).

    logits [N, N], pictures by texts, the pairs on the diagonal. `alike` [N, N] is True where a text
    fits a picture; where several do, each gets an equal share (UniCL, Yang et al., 2022).
    """
    alike = torch.eye(len(logits), device=logits.device) if alike is None else alike.to(logits.dtype)
    of_images = F.cross_entropy(logits, alike / alike.sum(1, keepdim=True))
    of_texts = F.cross_entropy(logits.T, alike.T / alike.T.sum(1, keepdim=True))
    return (of_images + of_texts) / 2


def sigmoid_loss(logits: Tensor, alike: Tensor | None = None) -> Tensor:
    """Every pair of picture and text judged on its own (SigLIP, Zhai et al., 2023): the sum over the
    texts, averaged over the pictures. logits [N, N]; `alike` as for `contrastive_loss`."""
    alike = torch.eye(len(logits), device=logits.device) if alike is None else alike.to(logits.dtype)
    return -F.logsigmoid(logits * (2 * alike - 1)).sum() / len(logits)


def hard_negatives(logits: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
    """Rows, and for each of them a column that is not `alike`; rows that are alike with all are left out. Most are
    drawn the more often the higher their logit (ALBEF, Li et al., 2021), a share of EVENLY with no regard to it: who
    sees hard ones alone may judge easy ones wrongly. logits, alike [N, M]"""
    rows = (~alike.all(1)).nonzero()[:, 0]
    hard = logits[rows].masked_fill(alike[rows], -torch.inf).softmax(1)
    odds = torch.lerp(hard, F.normalize((~alike[rows]).to(hard), p=1), EVENLY)
    drawn = torch.multinomial(odds, 1)[:, 0] if len(rows) else rows
    return rows, drawn


def next_token_loss(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Cross-entropy of each token given those before it, over the tokens to be learned; 0 where there are none.

    hidden [B, T, D]; labels [B, T], unshifted, IGNORED where nothing is learned; `head` makes logits
    of hidden states, and is asked for those that count alone.
    """
    learned = labels[:, 1:] != IGNORED
    told = head(hidden[:, :-1][learned]).float()
    return F.cross_entropy(told, labels[:, 1:][learned], reduction="sum") / max(1, len(told))


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Cross-entropy of a mask's pixels that counts little where they are right already (Lin et al., 2017), and the
    inside `alpha` to the outside's 1 - `alpha`: logits [..., H, W], target of as many or fewer masks -> [...], means"""
    target = target.to(logits.dtype).expand_as(logits)
    wrong = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (weight * (1 - torch.exp(-wrong)) ** gamma * wrong).flatten(-2).mean(dim=-1)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One less twice the shared area over the sum of areas, of a mask as probable as it is (Milletari et al., 2016):
    logits [..., H, W], target of as many or fewer masks -> [...]"""
    odds, target = logits.sigmoid().flatten(-2), target.to(logits.dtype).flatten(-2)
    return 1 - (2 * (odds * target).sum(dim=-1) + 1) / (odds.sum(dim=-1) + target.sum(dim=-1) + 1)
