"""Metrics, each by its usual definition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.float64]


def normalised(answer: str) -> str:
    """Lower case, without punctuation at the ends or doubled spaces."""
    return re.sub(r"\s+", " ", answer).strip(" \t\n.,;:!?\"'").lower()


def exact_match(answer: str, expected: str) -> bool:
    return normalised(answer) == normalised(expected)


def last_words(answer: str, count: int) -> list[str]:
    """An answer's last words, in front of which there are empty ones if it has fewer"""
    return [*[""] * count, *normalised(answer).split()][-count:]


def recall_at(k: int, similarity: Tensor, fits: Tensor) -> Tensor:
    """For each query, whether a fitting item is among its k most similar. similarity, fits [Q, N]"""
    best = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return fits.gather(1, best).any(dim=1)


def ranks(similarity: Tensor, fits: Tensor) -> Tensor:
    """For each query, the place of the most similar item that fits, from 1; of items as similar as it the last.
    similarity, fits [Q, N] -> [Q]"""
    best = similarity.masked_fill(~fits, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((similarity >= best) & ~fits).sum(dim=1)


def retrieval_scores(similarity: Tensor, fits: Tensor) -> dict[str, float]:
    """Of queries: recall at 1, 5 and 10, and the mean and median rank of the first item that fits. [Q, N]"""
    places = ranks(similarity, fits).double()
    recalls = {f"recall_at_{k}": float((places <= k).double().mean()) for k in (1, 5, 10)}
    return {**recalls, "mean_rank": float(places.mean()), "median_rank": float(places.quantile(0.5))}


def clip_score(images: Tensor, texts: Tensor) -> Tensor:
    """CLIPScore (Hessel et al., 2021) of vectors at unit length [N, D], each text of its picture -> [N]: 2.5 times the
    cosine, or 0. The authors put "A photo depicts" before a caption."""
    return 2.5 * (images * texts).sum(dim=-1).clamp(min=0)


def ref_clip_score(images: Tensor, texts: Tensor, references: Sequence[Tensor]) -> Tensor:
    """RefCLIPScore: the harmonic mean of CLIPScore and the cosine of the nearest reference, or 0. references: for each
    picture [R, D] -> [N]"""
    near = torch.stack([(several @ text).max().clamp(min=0) for several, text in zip(references, texts, strict=True)])
    score = clip_score(images, texts)
    return torch.where(score + near > 0, 2 * score * near / (score + near).clamp(min=1e-12), 0.0)


def accuracy(scores: Tensor, target: Tensor) -> float:
    """scores [N, classes], target [N] -> the share whose best class is the target"""
    return top_k_accuracy(scores, target, 1)


def top_k_accuracy(scores: Tensor, target: Tensor, k: int) -> float:
    """scores [N, classes], target [N] -> the share whose target is among the k best classes"""
    best = scores.topk(min(k, scores.shape[1]), dim=1).indices
    return float((best == target[:, None]).any(dim=1).float().mean()) if len(target) else torch.nan


def pearson(x: Tensor, y: Tensor) -> float:
    """The correlation of two rows of numbers [N]; 0 if either does not vary"""
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    spread = float(x.norm() * y.norm())
    return float(x @ y) / spread if spread else 0.0


def share(hits: list[bool]) -> float:
    """Of the hits those that are True"""
    return sum(hits) / len(hits)


def says_yes(answer: str) -> bool:
    """How POPE's authors read an answer: as yes, unless "no" or "not" is in its first sentence."""
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def yes_no_scores(said: Sequence[bool], truth: Sequence[bool]) -> dict[str, float]:
    """Whether each answer is yes, and should be; precision and recall are of yes (POPE, Li et al., 2023). A share of
    nothing is 0."""
    pairs = Counter(zip(said, truth, strict=True))
    found, right = pairs[True, True], pairs[True, True] + pairs[False, False]
    counts = np.array([right, found, sum(said), sum(truth)]) / len(said)
    return {name: float(value) for name, value in yes_no_rates(*counts).items()}


def yes_no_rates(right: Numbers, found: Numbers, yes: Numbers, there: Numbers) -> dict[str, Numbers]:
    """The same from shares of all questions: those answered right, rightly with yes, and with yes, and those to be
    answered with yes. Numbers, or arrays of them"""
    return {
        "accuracy": right,
        "precision": _ratio(found, yes),
        "recall": _ratio(found, there),
        "f1": _ratio(2 * found, yes + there),
        "yes_share": yes,
    }


def _ratio(part: Numbers, whole: Numbers) -> Numbers:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0)


def chair_scores(named: Sequence[Counter[Any]], there: Sequence[Collection[Hashable]]) -> dict[str, float]:
    """What each caption names, how often, and what is there (CHAIR, Rohrbach et al., 2018): `chair_i`, of all that is
    named the share that is not there; `chair_s`, of the captions those that name any such thing; `recall`, of what is
    there the share that is named."""
    counts = np.array([chair_counts(*one) for one in zip(named, there, strict=True)], np.float64).mean(axis=0)
    return {name: float(rate) for name, rate in chair_rates(*counts).items()}


def chair_counts(named: Counter[Any], there: Collection[Hashable]) -> tuple[int, ...]:
    """Of a caption: how often it names a thing, and one that is not there; whether it does; of how many things that
    are there it names how many."""
    wrong, real = sum(n for thing, n in named.items() if thing not in there), set(there)
    return named.total(), wrong, wrong > 0, len(real), sum(named[thing] > 0 for thing in real)


def chair_rates(named: Numbers, wrong: Numbers, wrongs: Numbers, there: Numbers, found: Numbers) -> dict[str, Numbers]:
    """`chair_scores` from the means of the counts over captions. Numbers, or arrays of them"""
    return {"chair_i": _ratio(wrong, named), "chair_s": wrongs, "recall": _ratio(found, there)}
