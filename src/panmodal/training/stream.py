"""The order in which samples are learned from: exact, resumable, and not stopped by a bad one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from panmodal.data.processor import Processor
from panmodal.data.readers import Source
from panmodal.data.sample import Batch
from panmodal.errors import InputError, TrainingError
from panmodal.training.stages import OBJECTIVES, Stage

BAD_SHARE = 0.01  # of the samples may be unusable; never fewer than one
STRIDE = 10**9  # between the seeds of two runs over an endless source


@dataclass
class Position:
    """How far a run has come in its data: samples taken, and those of them skipped, by reason."""

    taken: int = 0
    skipped: Counter[str] | None = None

    def __post_init__(self) -> None:
        self.skipped = Counter(self.skipped or {})

    @property
    def bad(self) -> int:
        return sum((self.skipped or {}).values())


def sample_number(source: Source, seed: int, position: int) -> int:
    """Which sample comes at a position: every one once an epoch, in an order of that epoch's own."""
    if source.size is None:
        return seed * STRIDE + position
    epoch, place = divmod(position, source.size)
    order = _orders.get((seed, epoch, source.size))
    if order is None:
        _orders.clear()
        shuffle = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = _orders[seed, epoch, source.size] = torch.randperm(source.size, generator=shuffle)
    return int(order[place])


_orders: dict[tuple[int, int, int], torch.Tensor] = {}


def batches(
    source: Source, processor: Processor, stage: Stage, seed: int, start: Position
) -> Iterator[tuple[list[Batch], Position]]:
    """The batches of each step, made one step ahead, and the position after them.

    Samples of like length share a batch, for padding costs as much as text does. One that cannot be
    used is counted and skipped; beyond BAD_SHARE, TrainingError says why.
    """
    objective = OBJECTIVES[stage.objective]
    position = start

    def step() -> tuple[list[Batch], Position]:
        nonlocal position
        encoded: list[Any] = []
        while len(encoded) < stage.batch * stage.accumulate:
            number = sample_number(source, seed, position.taken)
            skipped = position.skipped
            try:
                encoded.append(objective.encode(processor, source.sample(number)))
            except InputError as error:
                skipped = Counter(skipped) + Counter([str(error)])
            position = Position(position.taken + 1, skipped)
            if position.bad > BAD_SHARE * max(position.taken, 1 / BAD_SHARE):
                raise TrainingError(_too_many(position))
        encoded.sort(key=objective.length)
        made = [encoded[i : i + stage.batch] for i in range(0, len(encoded), stage.batch)]
        return [objective.batch(processor, some) for some in made], position

    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(step)
        while True:
            ready = coming.result()
            coming = ahead.submit(step)
            yield ready


def _too_many(position: Position) -> str:
    reasons = "; ".join(reason for reason, _ in Counter(position.skipped).most_common(3))
    return f"{position.bad} of {position.taken} samples could not be used, more than {BAD_SHARE:.0%}: {reasons}"
