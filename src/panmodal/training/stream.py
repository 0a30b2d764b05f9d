"""The order in which samples are learned from: exact, resumable, and not stopped by a bad one."""

from __future__ import annotations

import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from panmodal.data.processor import IGNORED, Processor
from panmodal.data.readers import Source
from panmodal.data.sample import Batch
from panmodal.errors import InputError, LabelError, TrainingError, at
from panmodal.training.stages import Conversing, Stage
from panmodal.training.world import ALONE, World, dealt

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
    return int(_order(seed, epoch, source.size)[place])


@lru_cache(maxsize=8)  # of a mixture, each source is somewhere else
def _order(seed: int, epoch: int, size: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batches(
    source: Source,
    processor: Processor,
    stage: Stage,
    seed: int,
    start: Position,
    workers: int = 0,
    world: World = ALONE,
) -> Iterator[tuple[list[Batch], Position]]:
    """The batches of each step, made ahead, and the position after them.

    Samples of like length share a batch, for padding costs as much as text does; or, where the stage packs,
    those that together fill a row. One that cannot be used is counted and left out; beyond BAD_SHARE,
    TrainingError says why. The order is the same with any number of `workers`, processes that make batches;
    without, a thread makes them. Each process of a `world` gets batches of its own samples, as many as the
    others, and all know the same position.
    """
    size = stage.batch * stage.accumulate
    maker = _Maker(source, processor, stage, world.rank, world.size)
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
            told = world.gather((len(made), reasons))
            made = _as_many(made, [many for many, _ in told])
            found = Counter(reason for _, reasons in told for reason in reasons)
            position = Position(position.taken + size, Counter(position.skipped) + found)
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
    rank: int = 0  # of `size` processes that learn, for which it makes the batches
    size: int = 1

    def __call__(self, numbers: list[int]) -> Made:
        objective: Any = self.stage.learns
        encoded: list[Any] = []
        reasons: list[str] = []
        kinds, size = list[str](), self.stage.batch // self.size
        if self.size > 1:
            lengths, kinds = self._measured(numbers)
            if isinstance(objective, Conversing):
                numbers = [numbers[i] for i in dealt(lengths, self.rank, self.size)]
            else:  # of each batch a stretch, so that all of them are in the order in which one process has it
                numbers = [n for i, n in enumerate(numbers) if i % self.stage.batch // size == self.rank]
        for number in numbers:
            try:
                sample = self.source.sample(number)
                with at(sample.place):
                    encoded.append(objective.encode(self.processor, sample))
            except InputError as error:
                if isinstance(error, LabelError) and self.source.size is not None:
                    raise TrainingError(f"{error} (`panmodal data check` finds all such samples)") from None
                reasons.append(str(error))
        encoded.sort(key=objective.length)
        if self.stage.pack:
            room = self.processor.context if self.stage.pack is True else self.stage.pack
            shared, make = fill(encoded[::-1], objective.length, room), objective.packed
        else:
            shared, make = [encoded[i : i + size] for i in range(0, len(encoded), size)], objective.batch
        if self.size > 1 and isinstance(objective, Conversing):
            shared = [_in_step(some, objective, self.processor, kinds) for some in shared or [[]]]
        return [make(self.processor, some) for some in shared], reasons

    def _measured(self, numbers: list[int]) -> tuple[list[int], list[str]]:
        """How long each sample is, 0 if it is broken, and which kinds of media there are in any. Those that are not
        this process's own are read, but no medium is decoded."""
        objective = self.stage.learns
        lengths, kinds = [0] * len(numbers), set[str]()
        if not isinstance(objective, Conversing):
            return lengths, []  # all samples are alike
        for i, number in enumerate(numbers):
            with suppress(InputError):
                sample = self.source.sample(number)
                lengths[i] = objective.measure(self.processor, sample)
                kinds.update(medium.kind for medium in sample.media)
        return lengths, sorted(kinds)


def _in_step(some: list[Any], objective: Conversing, processor: Processor, kinds: Sequence[str]) -> list[Any]:
    """A batch's conversations, and a blank one if it is empty or without a kind of media that others have."""
    missing = [kind for kind in kinds if not any(m.kind == kind for one in some for m in objective.media(one))]
    return [*some, objective.blank(processor, missing)] if missing or not some else some


def _as_many(made: list[Batch], each: list[int]) -> list[Batch]:
    """A process's batches, as many as those of the process that has the most, further ones without anything to learn.
    Where all processes make one loss, as many as that which has the fewest, for samples that could not be used."""
    if made and made[0].labels is not None:
        nothing = replace(made[0], labels=torch.full_like(made[0].labels, IGNORED))
        return made + [nothing] * (max(each) - len(made))
    return made[: min(each)]


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
