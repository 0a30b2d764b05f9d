"""Several data sets as one: one after the other, or mixed by weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from panmodal.data.index import Numbers
from panmodal.data.readers import Source
from panmodal.data.sample import Sample
from panmodal.errors import InputError
from panmodal.training.stream import STRIDE, sample_number

ROUND = 1000  # samples in which every source has exactly its share


class Joined:
    """All samples of some sources, each once an epoch."""

    def __init__(self, sources: Sequence[Source]) -> None:
        sizes = [source.size for source in sources]
        if not sizes or None in sizes:
            raise InputError("an endless source is not one of a list; give it a weight: { 'playground/…' = 1.0 }")
        self.sources, self.ends = list(sources), np.cumsum(np.array(sizes, np.int64))

    @property
    def size(self) -> int:
        return int(self.ends[-1])

    def sample(self, index: int) -> Sample:
        which = int(np.searchsorted(self.ends, index, side="right"))
        return self.sources[which].sample(index - (int(self.ends[which - 1]) if which else 0))


class Mixture:
    """Samples of some sources in the proportions of their weights, without end.

    Which comes at a position is known from the position alone, so that a run goes on in the middle of an epoch, and
    with any number of workers, as it would have. In every round each source has exactly its share, in an order drawn
    for that round; and each source goes through epochs of its own.
    """

    size = None

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        if not weights or min(weights) <= 0:
            raise InputError(f"the weights of data are above 0, not {list(weights)}")
        self.sources = list(sources)
        exact = np.array(weights) / sum(weights) * ROUND
        shares = np.floor(exact).astype(int)
        shares[np.argsort(shares - exact, kind="stable")[: ROUND - shares.sum()]] += 1
        if not shares.all():
            raise InputError(f"a weight under {1 / ROUND} of all of them is too small: {list(weights)}")
        self.shares: list[int] = shares.tolist()

    def sample(self, number: int) -> Sample:
        """`number` counts from `STRIDE` times the run's seed, as it does of any endless source."""
        seed, position = divmod(number, STRIDE)
        turn, place = divmod(position, ROUND)
        order = _round(tuple(self.shares), seed, turn)
        which = int(order[place])
        before = turn * self.shares[which] + int((order[:place] == which).sum())
        source = self.sources[which]
        return source.sample(sample_number(source, seed, before))


@lru_cache(maxsize=8)
def _round(shares: tuple[int, ...], seed: int, turn: int) -> Numbers:
    """Whose turn it is at each place of a round, [ROUND]"""
    shuffle = torch.Generator().manual_seed(seed * 1_000_003 + turn)
    order = torch.randperm(ROUND, generator=shuffle).numpy()
    drawn: Numbers = np.repeat(np.arange(len(shares)), shares)[order]
    return drawn
