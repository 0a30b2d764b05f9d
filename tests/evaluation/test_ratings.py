"""Elo and Bradley-Terry against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from panmodal.evaluation.ratings import bradley_terry, elo, elo_interval


def fought(battles, players):
    """Ratings after battles in the order in which they stand"""
    return elo(battles, players, np.arange(len(battles))[:, None])[0]


def test_elo_by_hand():
    """Equals move by half of K; then the one who leads by four gains less, and the favourite loses by a tie."""
    assert fought([(0, 1, 1.0)], 3).tolist() == [1002, 998, 1000]
    assert fought([(0, 1, 0.5)], 2).tolist() == [1000, 1000]
    expected = 1 / (1 + 10 ** (-4 / 400))  # of the one who leads by four
    won, tied = 4 * (1 - expected), 4 * (0.5 - expected)
    assert fought([(0, 1, 1.0), (0, 1, 1.0)], 2) == pytest.approx([1002 + won, 998 - won])
    assert fought([(0, 1, 1.0), (1, 0, 0.5)], 2) == pytest.approx([1002 + tied, 998 - tied])


def test_elo_keeps_the_mean_and_hangs_on_the_order():
    battles = [(0, 1, 1.0), (1, 2, 0.5), (2, 0, 1.0), (0, 1, 0.0)]
    there, back = elo(battles, 3, np.array([[0, 1, 2, 3], [3, 2, 1, 0]]).T)
    assert there.tolist() == fought(battles, 3).tolist() and back.tolist() == fought(battles[::-1], 3).tolist()
    assert there.mean() == pytest.approx(1000) and not np.allclose(there, back)


def test_the_interval_of_elo():
    battles = [(0, 1, 1.0)] * 60 + [(0, 1, 0.0)] * 20
    low, middle, high = elo_interval(battles, 2)
    assert (low < middle).all() and (middle < high).all()
    assert low[0] > 1000 > high[1] and middle == pytest.approx([2000 - middle[1], middle[1]])
    assert elo_interval(battles, 2).tolist() == [low.tolist(), middle.tolist(), high.tolist()]
    assert elo_interval(battles, 2, seed=1).tolist() != [low.tolist(), middle.tolist(), high.tolist()]


def test_bradley_terry_of_two():
    """The odds are those of the wins: three to one are 400 log10 3 = 190.8 apart. A tie is half a win for each."""
    found = bradley_terry([(0, 1, 1.0), (1, 0, 0.0), (0, 1, 1.0), (0, 1, 0.0)], 2)
    assert found == pytest.approx([1095.4243, 904.5757], abs=1e-3)
    assert bradley_terry([(0, 1, 1.0), (0, 1, 0.5)], 2) == pytest.approx(found, abs=1e-3)


def test_bradley_terry_finds_the_strengths_that_made_the_battles():
    """Of players twice as strong as the next, the shares of wins are as expected."""
    strengths = [4, 2, 1, 1]
    battles = []
    for a in range(4):
        for b in range(a):
            battles += [(a, b, 1.0)] * strengths[a] * 15 + [(a, b, 0.0)] * strengths[b] * 15
    found = bradley_terry(battles, 4)
    assert np.diff(found) == pytest.approx([-400 * np.log10(2)] * 2 + [0], abs=1e-4) and found.mean() == pytest.approx(
        1000
    )


def test_bradley_terry_that_is_not_there():
    assert bradley_terry([(0, 1, 1.0)], 2) is None  # nothing is so strong as never to lose
    assert bradley_terry([(0, 1, 0.5), (2, 3, 0.5)], 4) is None  # who never met
    assert bradley_terry([(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)], 3) == pytest.approx([1000] * 3)
