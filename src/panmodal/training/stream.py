"""The order in which samples are learned from: exact, resumable, and not stopped by a bad one."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from typing import Any, TypeVar

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
    source: Source, processor: Processor, stage: Stage, seed: int, start: Position, workers: int = 0
) -> Iterator[tuple[list[Batch], Position]]:
    """The batches of each step, made ahead, and the position after them.

    Samples of like length share a batch, for padding costs as much as text does; or, where the stage packs,
    those that together fill a row. One that cannot be
    used is counted and left out; beyond BAD_SHARE, TrainingError says why. The order is the same
    with any number of `workers`, processes that make batches; without, a thread makes them.
    """
    size = stage.batch * stage.accumulate
    maker = _Maker(source, processor, stage)
    position = start

    def submit(i: int) -> Future[Made]:
        first = start.taken + i * size
        numbers = [sample_number(source, seed, first + k) for k in range(size)]
        return pool.submit(_make, numbers) if workers else pool.submit(maker, numbers)

    pool = _pool(workers, maker)
    try:
        coming = deque(submit(i) for i in range(max(1, 2 * workers)))
        for i in count(len(coming)):
            made, reasons = coming.popleft().result()
            coming.append(submit(i))
            position = Position(position.taken + size, Counter(position.skipped) + Counter(reasons))
            if position.bad > BAD_SHARE * max(position.taken, 1 / BAD_SHARE):
                raise TrainingError(_too_many(position))
            if made:
                yield made, position
    except BrokenProcessPool:
        raise TrainingError("a process that makes batches died; if for want of memory, use fewer") from None
    finally:
        pool.shutdown(cancel_futures=True)


Made = tuple[list[Batch], list[str]]  # a step's batches, and why samples were left out


@dataclass(frozen=True)
class _Maker:
    """Makes a step's batches of samples, by their numbers."""

    source: Source
    processor: Processor
    stage: Stage

    def __call__(self, numbers: list[int]) -> Made:
        objective: Any = OBJECTIVES[self.stage.objective]
        encoded: list[Any] = []
        reasons: list[str] = []
        for number in numbers:
            try:
                encoded.append(objective.encode(self.processor, self.source.sample(number)))
            except InputError as error:
                reasons.append(str(error))
        encoded.sort(key=objective.length)
        if self.stage.pack:
            room = self.processor.context if self.stage.pack is True else self.stage.pack
            rows = fill(encoded[::-1], objective.length, room)
            return [objective.packed(self.processor, row) for row in rows], reasons
        size = self.stage.batch
        shared = [encoded[i : i + size] for i in range(0, len(encoded), size)]
        return [objective.batch(self.processor, some) for some in shared], reasons


T = TypeVar("T")


def fill(things: Iterable[T], length: Callable[[T], int], room: int) -> list[list[T]]:
    """Each thing in the first row that has room for it, or in a new one: first fit, which takes few more rows than
    the best way if the longest come first."""
    rows: list[list[T]] = []
    left: list[int] = []
    for thing in things:
        size = length(thing)
        at = next((i for i, space in enumerate(left) if size <= space), len(rows))
        if at == len(rows):
            rows.append([])
            left.append(room)
        rows[at].append(thing)
        left[at] -= size
    return rows


def _pool(workers: int, maker: _Maker) -> Executor:
    if not workers:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin, (maker,))


def _begin(maker: _Maker) -> None:
    """In a process that makes batches, whose parent alone answers to Ctrl-C"""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _makers.append(maker)


def _make(numbers: list[int]) -> Made:
    return _makers[-1](numbers)


_makers: list[_Maker] = []  # of such a process, one


def _too_many(position: Position) -> str:
    reasons = "; ".join(reason for reason, _ in Counter(position.skipped).most_common(3))
    return f"{position.bad} of {position.taken} samples could not be used, more than {BAD_SHARE:.0%}: {reasons}"
