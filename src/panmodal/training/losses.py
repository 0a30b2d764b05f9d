"""Losses: contrastive, sigmoid, and next token."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.processor import IGNORED


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


def next_token_loss(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Cross-entropy of each token given those before it, over the tokens to be learned.

    hidden [B, T, D]; labels [B, T], unshifted, IGNORED where nothing is learned; `head` makes logits
    of hidden states, and is asked for those that count alone.
    """
    learned = labels[:, 1:] != IGNORED
    return F.cross_entropy(head(hidden[:, :-1][learned]).float(), labels[:, 1:][learned])
