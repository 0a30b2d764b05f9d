"""Metrics, each by its usual definition."""

from __future__ import annotations

import re

import torch
from torch import Tensor


def normalised(answer: str) -> str:
    """Lower case, without punctuation at the ends or doubled spaces."""
    return re.sub(r"\s+", " ", answer).strip(" \t\n.,;:!?\"'").lower()


def exact_match(answer: str, expected: str) -> bool:
    return normalised(answer) == normalised(expected)


def recall_at(k: int, similarity: Tensor, fits: Tensor) -> Tensor:
    """For each query, whether a fitting item is among its k most similar. similarity, fits [Q, N]"""
    best = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return fits.gather(1, best).any(dim=1)


def accuracy(scores: Tensor, target: Tensor) -> float:
    """scores [N, classes], target [N] -> the share whose best class is the target"""
    return float((scores.argmax(dim=1) == target).float().mean()) if len(target) else torch.nan


def pearson(x: Tensor, y: Tensor) -> float:
    """The correlation of two rows of numbers [N]; 0 if either does not vary"""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    spread = float(x.norm() * y.norm())
    return float(x @ y) / spread if spread else 0.0


def share(hits: list[bool]) -> float:
    """Of the hits those that are True"""
    return sum(hits) / len(hits)
