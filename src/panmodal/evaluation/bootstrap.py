"""Scores with confidence intervals: of whatever is a function of means over examples, by the bootstrap."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Means = dict[str, NDArray[np.float64]]  # by name, [1 + RESAMPLES]: of the examples, then of each resample of them
RESAMPLES = 1000
LEVEL = 95.0  # percent


@dataclass(frozen=True)
class Score:
    """What answers reach: metrics by name, of each the interval that holds it in 95 % of resamples, and how many
    answers could not be read, which count as wrong."""

    metrics: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    unparsed: int | None


def plain(means: Means) -> Means:
    """The means as they are, as metrics"""
    return {name: mean for name, mean in means.items() if name != "unparsed"}


def tally(units: Sequence[Mapping[str, float]], metrics: Callable[[Means], Means] = plain) -> Score:
    """Metrics from the mean of each name over the units that have it, and percentile intervals over units drawn anew
    with replacement, from a fixed seed.

    A unit is what is independent of the others: a question, or all those about a picture that count together. Of what
    it calls `unparsed` the sum is told.
    """
    names = list(dict.fromkeys(name for unit in units for name in unit))
    values = np.array([[unit.get(name, 0.0) for name in names] for unit in units], np.float64)
    there = np.array([[name in unit for name in names] for unit in units], np.float64)
    columns = np.concatenate([values, there], axis=1)  # [units, 2 names]
    sums = np.empty((1 + RESAMPLES, columns.shape[1]))
    sums[0] = columns.sum(axis=0)
    random = np.random.default_rng(0)
    for row in sums[1:]:
        drawn = random.integers(len(units), size=len(units))
        row[:] = np.bincount(drawn, minlength=len(units)).astype(np.float64) @ columns
    unparsed = round(sums[0, names.index("unparsed")]) if "unparsed" in names else 0
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may lack a kind
        found = metrics({name: sums[:, i] / sums[:, len(names) + i] for i, name in enumerate(names)})
    edges = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)
    bounds = {name: np.nanpercentile(rows[1:], edges) for name, rows in found.items()}
    intervals = {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
    return Score({name: float(rows[0]) for name, rows in found.items()}, intervals, unparsed)


def named(kind: object) -> str:
    """A category as a metric's name: "Art & Design" -> "art_and_design" """
    return re.sub(r"\W+", "_", str(kind).lower().replace("&", "and")).strip("_")
