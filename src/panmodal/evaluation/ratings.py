"""Ratings of players from battles between two: Elo and Bradley-Terry.

A battle is the numbers of two players and what the first of them scored: 1, 0, or 0.5 for a tie. Both ratings have a
mean of 1000, and 400 more are odds of ten to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

START, SCALE, STEP = 1000.0, 400.0, 4.0
ROUNDS = 1000  # of the bootstrap
CLOSE, MOST = 1e-10, 100_000  # change of strengths at the end, and steps to there

Battle = tuple[int, int, float]
Floats = NDArray[np.float64]


def elo(battles: Sequence[Battle], players: int, order: NDArray[Any]) -> Floats:
    """Ratings after each of R rounds of battles (Elo, 1978; K = 4), [R, players]; order [N, R] has the numbers of the
    battles that are fought in each, one after another."""
    first, second, score = map(np.array, zip(*battles, strict=True))
    ratings, rounds = np.full((order.shape[1], players), START), np.arange(order.shape[1])
    for turn in order:
        a, b = first[turn], second[turn]
        expected = 1 / (1 + 10 ** ((ratings[rounds, b] - ratings[rounds, a]) / SCALE))
        gain = STEP * (score[turn] - expected)
        ratings[rounds, a] += gain
        ratings[rounds, b] -= gain
    return ratings


def elo_interval(battles: Sequence[Battle], players: int, seed: int = 0) -> Floats:
    """The 2.5th, 50th and 97.5th percentile of the ratings, [3, players], since Elo's hang on the order of battles:
    each round of the bootstrap draws as many battles as there are, with replacement, in an order of its own."""
    order = np.random.default_rng(seed).integers(len(battles), size=(len(battles), ROUNDS))
    return np.percentile(elo(battles, players, order), (2.5, 50, 97.5), axis=0)


def bradley_terry(battles: Sequence[Battle], players: int) -> Floats | None:
    """The likeliest ratings, [players], whatever the order, a tie being half a win for each (Bradley and Terry, 1952;
    by Hunter's iteration, 2004). None where there are none: some players never scored against the others."""
    wins = np.zeros((players, players))
    for a, b, score in battles:
        wins[a, b] += score
        wins[b, a] += 1 - score
    beaten = np.eye(players, dtype=bool) | (wins > 0)
    for _ in range(players.bit_length()):
        beaten = beaten @ beaten  # at first, second, fourth … hand
    if not beaten.all():
        return None
    strength, fought = np.ones(players), wins + wins.T
    for _ in range(MOST):
        last = strength
        strength = wins.sum(axis=1) / (fought / (last[:, None] + last)).sum(axis=1)
        strength /= np.exp(np.log(strength).mean())
        if np.abs(strength / last - 1).max() < CLOSE:
            break
    return START + SCALE * np.log10(strength)
