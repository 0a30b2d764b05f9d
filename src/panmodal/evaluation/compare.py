"""Two models' results on the same examples, compared answer by answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import tally
from panmodal.evaluation.results import Result


@dataclass(frozen=True)
class Flip:
    """An example whose answers count differently."""

    id: str
    question: str
    truth: Any
    answers: tuple[str, str]
    scores: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """What the second result has over the first: the difference of the mean scores with its 95 % interval (a paired
    bootstrap from a fixed seed), and, where answers are right or wrong, the two-sided p of McNemar's exact test;
    elsewhere it is None. `gained` and `lost` are examples, those that differ most first."""

    models: tuple[str, str]
    task: str
    split: str
    examples: int
    metric: str
    scores: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    p: float | None
    gained: list[Flip]
    lost: list[Flip]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(first: Sequence[Result], second: Sequence[Result]) -> list[Comparison]:
    """Compares the results of the tasks that both have. Raises InputError if there are none, or if what was asked
    differs."""
    ours, theirs = _by_task(first), _by_task(second)
    both = [key for key in ours if key in theirs]
    if not both:
        have = [", ".join(f"{task} ({split})" for task, split in side) or "none" for side in (ours, theirs)]
        raise InputError(f"there is no task of which both have answers; the first has {have[0]}, the second {have[1]}")
    return [_compare(ours[key], theirs[key]) for key in both]


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p of McNemar's exact test (1947): how likely so uneven a split of the flips is if either way is as
    likely."""
    flips = gained + lost
    tail = sum(comb(flips, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << flips))


def _by_task(results: Sequence[Result]) -> dict[tuple[str, str], Result]:
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        key = result.task, result.split
        if key in found:
            raise InputError(f"there are two results of {result.task}, split {result.split}; name one of their files")
        if result.answers:
            found[key] = result
    return found


def _compare(first: Result, second: Result) -> Comparison:
    if first.provenance.get("data") != second.provenance.get("data"):
        raise InputError(
            f"{first.task}: the two were asked different examples, {first.examples:,} and {second.examples:,}; "
            "evaluate both with one --split, --count and --data"
        )
    pairs = list(zip(first.answers, second.answers, strict=True))
    flips = [
        Flip(a.id, a.question, a.truth, (a.said, b.said), (a.score, b.score))
        for a, b in sorted(pairs, key=lambda pair: -abs(pair[1].score - pair[0].score))
        if a.score != b.score
    ]
    gained, lost = ([f for f in flips if (f.scores[1] > f.scores[0]) is up] for up in (True, False))
    means = tally([{"first": a.score, "second": b.score, "difference": b.score - a.score} for a, b in pairs])
    binary = all(isinstance(one.score, bool) for pair in pairs for one in pair)
    return Comparison(
        models=(str(first.model), str(second.model)),
        task=first.task,
        split=first.split,
        examples=len(pairs),
        metric=first.metric,
        scores=(means.metrics["first"], means.metrics["second"]),
        difference=means.metrics["difference"],
        interval=means.intervals["difference"],
        p=mcnemar(len(gained), len(lost)) if binary else None,
        gained=gained,
        lost=lost,
    )
