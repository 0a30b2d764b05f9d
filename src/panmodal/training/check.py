"""A data set looked through before a training: what it has, and what a training could not learn from."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from panmodal.data.processor import Encoded, Processor
from panmodal.data.readers import Records, Source
from panmodal.data.sample import Image, Sample, assistant
from panmodal.errors import ContextError, InputError, LabelError, PlaceholderError
from panmodal.training.stages import OBJECTIVES, Objective

FAULTS = {  # for which a training would stop, or leave the sample out, or learn nothing from it
    "unreadable": "cannot be read",
    "placeholders": "placeholders and pictures differ",
    "missing_pictures": "a picture's file is missing",
    "broken_pictures": "a picture is broken",
    "too_long": "longer than the context",
    "masked": "every label is masked",
    "empty_answers": "an answer is empty",
    "unusable": "cannot be used by this model",
}
DUPLICATED = "duplicated_pictures"  # worth knowing, and no fault
TOGETHER = 64  # samples looked at in turn by the threads


@dataclass
class Look:
    """One sample: where it stands, why it is bad, its length in tokens, how many answers cutting it would cost,
    and its pictures, by the digest of what is seen, with their names."""

    number: int
    place: str
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    cut: int = 0
    pictures: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self, source: Source) -> dict[str, Any]:
        """A line of the file of bad samples, with the record as it stands in its own file, if it can be read."""
        told: dict[str, Any] = {"place": self.place, "number": self.number, "faults": self.faults, "notes": self.notes}
        try:
            return {**told, "record": source.record(self.number)} if isinstance(source, Records) else told
        except InputError:
            return told


@dataclass
class Report:
    """A whole data set. `first` has an example of each fault."""

    context: int
    samples: int = 0
    bad: int = 0
    pictures: int = 0
    truncated_answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    tokens: array[int] = field(default_factory=lambda: array("q"))

    def to_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "bad": self.bad,
            "pictures": self.pictures,
            **{fault: self.faults[fault] for fault in (*FAULTS, DUPLICATED)},
            "truncated_answers": self.truncated_answers,
            "tokens": self.lengths(),
            "context": self.context,
        }

    def lengths(self) -> dict[str, int]:
        """Of conversations, in tokens with those that pictures fill: the shortest, the median, 95 %, the longest"""
        ordered = sorted(self.tokens)
        places = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
        return {name: ordered[round(share * (len(ordered) - 1))] for name, share in places.items()} if ordered else {}


def check(
    source: Source,
    processor: Processor,
    count: int | None = None,
    told: Callable[[Look], None] = lambda look: None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Encodes every sample as a training does: as a conversation, or, for a model that has none, as a picture and its
    caption. `told` gets each sample that is bad or worth a note. Raises InputError for an endless source without a
    `count`."""
    size = source.size if count is None else min(count, source.size or count)
    if size is None:
        raise InputError("the data have no end; say how many to look at with --count")
    report, seen = Report(processor.context), dict[str, str]()
    objective = objective_for(processor)
    with ThreadPoolExecutor() as pool:
        for begin in range(0, size, TOGETHER):
            numbers = range(size)[begin : begin + TOGETHER]
            for look in pool.map(lambda number: examine(source, number, processor, objective), numbers):
                _note_copies(look, seen)
                _add(report, look)
                if look.faults or look.notes:
                    told(look)
            progress(report.samples, size)
    report.pictures = len(seen)
    return report


def objective_for(processor: Processor) -> Objective:
    return OBJECTIVES["answers" if processor.converses else "contrastive"]


def examine(source: Source, number: int, processor: Processor, objective: Objective) -> Look:
    look = Look(number, f"sample {number + 1}")
    try:
        sample = source.sample(number)
    except InputError as error:
        if isinstance(source, Records):
            look.place = source.place(number)
        look.faults["placeholders" if isinstance(error, PlaceholderError) else "unreadable"] = str(error)
        return look
    look.place = sample.place or look.place
    for medium in sample.media:
        try:
            medium.check()
            if isinstance(medium, Image):
                look.pictures.append((medium.key, medium.name if medium.name[:1] != "<" else look.place))
        except InputError as error:
            gone = isinstance(medium.source, str | Path) and not Path(medium.source).exists()
            look.faults["missing_pictures" if gone else "broken_pictures"] = str(error)
    for conversation in [] if look.faults else _conversations(sample):
        _encode(look, conversation, processor, objective)
    return look


def _conversations(sample: Sample) -> Iterator[Sample]:
    """The sample; or of a preference two, one with each answer"""
    if "chosen" not in sample.about:
        yield sample
    else:
        for answer in ("chosen", "rejected"):
            yield replace(sample, messages=(*sample.messages, assistant(sample.about[answer])))


def _encode(look: Look, sample: Sample, processor: Processor, objective: Objective) -> None:
    empty = [i for i, m in enumerate(sample.messages, 1) if m.role == "assistant" and not (m.text.strip() or m.media)]
    if empty:
        look.faults["empty_answers"] = f"message {empty[0]} of {len(sample.messages)}, the assistant's, says nothing"
    try:
        encoded = objective.encode(processor, sample)
    except ContextError as error:
        whole = processor.expand(sample.messages)
        look.tokens.append(len(whole.ids))
        cut, where = _beyond(whole, processor)
        look.cut += cut
        look.faults["too_long"] = f"{error}: cut there, {where}"
    except LabelError as error:
        look.faults["placeholders" if isinstance(error, PlaceholderError) else "masked"] = str(error)
    except InputError as error:
        look.faults["unusable"] = str(error)
    else:
        length = len(encoded.ids) if isinstance(encoded, Encoded) else len(processor.tokenizer.encode(encoded[1]))
        look.tokens.append(length)
        look.cut += length > processor.context  # captions are cut in training, as they are of the reference


def _beyond(whole: Encoded, processor: Processor) -> tuple[int, str]:
    """How many answers a cut at the context would cost tokens, and what it would do"""
    ends = [i for i, (a, b) in enumerate(pairwise([*whole.learned, False]), 1) if a and not b]
    cut, place = sum(end > processor.context for end in ends), processor.context
    inside = all(token in processor.placeholders for token in whole.ids[place - 1 : place + 1])
    return cut, f"{cut} of {len(ends)} answers would lose tokens" + (", and a picture a part of it" if inside else "")


def _note_copies(look: Look, seen: dict[str, str]) -> None:
    for digest, name in look.pictures:
        first = seen.setdefault(digest, name)
        if first != name:
            look.notes[DUPLICATED] = f"the picture {name} is the same as {first}"


def _add(report: Report, look: Look) -> None:
    report.samples += 1
    report.bad += bool(look.faults)
    report.truncated_answers += look.cut
    report.tokens.extend(look.tokens)
    problems: Mapping[str, str] = look.faults | look.notes
    for fault, reason in problems.items():
        report.faults[fault] += 1
        report.first.setdefault(fault, reason if reason.startswith(look.place) else f"{look.place}: {reason}")
