"""What an evaluation leaves in a folder, so that its figures can be looked into: `TASK.jsonl`, the answers as they
come, from which a stopped evaluation goes on, and `TASK.json`, the result, of the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

import panmodal
from panmodal.data.index import replacing_file
from panmodal.data.media import Medium
from panmodal.data.sample import Image, Part, Text, user
from panmodal.errors import InputError
from panmodal.evaluation.task import Example, Task
from panmodal.families import Conversational, Family
from panmodal.generate import Sampling


@dataclass(frozen=True)
class Report:
    """The outcome of one task: `model` is None where somebody's answers were scored. Of a benchmark each
    metric has the 95 % interval of a bootstrap over examples, and `unparsed` is how many answers could not be read."""

    model: str | None
    task: str
    split: str
    examples: int
    metrics: dict[str, Any]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    unparsed: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None and value != {}}


@dataclass(frozen=True)
class Answered:
    """An example and a model's answer to it, a text or JSON (`Task`). `media` are paths, from the result's folder if
    they are not absolute; `score` is what the answer counts: whether it is right, a share, or, of captions, CIDEr."""

    id: str
    question: str
    media: list[str]
    truth: Any
    answer: Any
    score: bool | float

    @property
    def wrong(self) -> bool:
        return self.score < 0.5

    @property
    def said(self) -> str:
        """The answer for people, of JSON a line for each name"""
        return _told(self.answer)

    @property
    def expected(self) -> str:
        """The truth for people"""
        return _told(self.truth)


@dataclass(frozen=True)
class Result(Report):
    """A report, how it was made, and the answers it is made of; `metric` is what their scores are of."""

    metric: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    answers: list[Answered] = field(default_factory=list)

    @property
    def report(self) -> Report:
        return Report(**{one.name: getattr(self, one.name) for one in fields(Report)})


RESULT = TypeAdapter(Result)


def provenance(
    model: Any, task: str, split: str, settings: Mapping[str, Any], benchmark: Task, examples: Sequence[Example]
) -> dict[str, Any]:
    """All that a result depends on: the model, its preprocessing and template, what is asked and how, and versions."""
    told: dict[str, Any] = {"model": {"name": model.name}}
    if isinstance(model, Family):
        told["model"] |= {
            "fingerprint": model.fingerprint(),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        }
        told |= {"preprocessing": model.checkpoint.image_processor, "chat_template": model.checkpoint.chat_template}
    else:
        told["model"] |= {"base_url": getattr(model, "base_url", None)}
    told |= {"task": task, "split": split, **settings, "data": digest(examples)}
    if isinstance(model, Conversational):
        told["decoding"] = {**asdict(Sampling(max_tokens=benchmark.max_tokens)), "first": benchmark.first}
    versions = {"panmodal": panmodal.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return dict(json.loads(json.dumps({**told, "versions": versions})))


def digest(examples: Sequence[Example]) -> str:
    """Of ids, questions, truths, and media: names and sizes of files, and content without a name."""
    told = hashlib.sha256()
    for one in examples:
        parts = [_known_by(part) for part in user(*one.parts).parts]
        told.update(json.dumps([one.id, parts, one.truth]).encode())
    return told.hexdigest()


def _known_by(part: Part) -> Any:
    if isinstance(part, Text):
        return part.text
    if isinstance(part.source, bytes):
        return hashlib.sha256(part.source).hexdigest()
    path = _path(part)
    return [part.kind, *([path.name, path.stat().st_size if path.is_file() else None] if path else [])]


def _path(medium: Medium) -> Path | None:
    return Path(medium.source) if isinstance(medium.source, str | os.PathLike) else None


class Record:
    """Where the answers to a task are kept, and its result. Raises InputError if the folder has answers or a result
    that came about in another way."""

    def __init__(self, folder: Path, task: str, made: dict[str, Any], rows: int) -> None:
        self.folder, self.made, self.rows, self.header = folder, made, rows, _line({"provenance": made})
        name = task.replace("/", "-")
        self.lines, self.file = folder / f"{name}.jsonl", folder / f"{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"results cannot be kept in {folder} ({error.strerror})") from None
        self.result = read_result(self.file) if self.file.exists() else None
        if self.result:
            self._check(self.file, self.result.provenance)

    def answers(self, examples: Sequence[Example], ask: Callable[[Sequence[Example]], Iterator[Any]]) -> Iterator[Any]:
        """The answers to all examples: those that are kept, and the others as they are asked for, each written down
        before it is told. Questions that were asked together are asked together again, so that an evaluation that was
        stopped ends with the answers of one that was not."""
        known = self._known(examples)
        yield from known
        rest = examples[len(known) :]
        with self.lines.open("ab") as out:
            for one, answer in zip(rest, ask(rest) if rest else (), strict=True):
                out.write(_line({"id": one.id, "answer": answer}))
                out.flush()
                yield answer

    def _known(self, examples: Sequence[Example]) -> list[Any]:
        """The answers that the file has; it is cut off after them"""
        content = self.lines.read_bytes() if self.lines.exists() else b""
        header, *rows = content.splitlines(keepends=True) or [b""]
        if self.header.startswith(header) and not rows and header != self.header:  # none, or killed as it began
            self.lines.write_bytes(self.header)
            return []
        rows = [row for row in rows if row.endswith(b"\n")]
        try:
            made, told = json.loads(header)["provenance"], [json.loads(row) for row in rows]
            pairs = [(str(one["id"]), one["answer"]) for one in told]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.lines} has something else than answers; move it, or name another --out") from None
        self._check(self.lines, made)
        if [key for key, _ in pairs] != [one.id for one in examples[: len(pairs)]]:
            raise InputError(f"{self.lines} has answers to other questions; move it, or name another --out")
        count = len(pairs) if len(pairs) == len(examples) else len(pairs) - len(pairs) % self.rows
        os.truncate(self.lines, len(header) + sum(map(len, rows[:count])))
        return [answer for _, answer in pairs[:count]]

    def _check(self, file: Path, made: Mapping[str, Any]) -> None:
        if made != self.made:
            where, old, new = next(_differences(made, self.made))
            raise InputError(
                f"{file} was made with {where} {_short(old)}, and this would be with {_short(new)}; name another --out"
            )

    def write(self, report: Report, benchmark: Task, examples: Sequence[Example], told: Mapping[str, Any]) -> None:
        """Writes the result: whole, or not at all."""
        answers: list[Answered] = []
        for one, mark in zip(examples, benchmark.marks(examples, told), strict=True):
            parts = user(*one.parts).parts
            question = "\n".join(part.text for part in parts if isinstance(part, Text))
            places = [place for part in parts if isinstance(part, Medium) and (place := self._place(part))]
            score = mark if isinstance(mark, bool) else float(mark)
            answers.append(Answered(one.id, question, places, one.truth, told[one.id], score))
        result = Result(**vars(report), metric=benchmark.metric, provenance=self.made, answers=answers)
        replace_file(self.file, json.dumps(asdict(result), indent=1).encode() + b"\n")

    def _place(self, medium: Medium) -> str | None:
        """Where a medium lies; a picture that has no file gets one"""
        if path := _path(medium):
            return str(path.absolute())
        if not isinstance(medium, Image):
            return None
        seen = copy(medium)  # of which what is decoded is not kept
        place = self.folder / "pictures" / f"{seen.key[:32]}.png"
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            with replacing_file(place) as fresh:
                seen.pixels.save(fresh, "PNG")
        return f"pictures/{place.name}"


def read_results(places: Sequence[Path]) -> list[tuple[Path, Result]]:
    """The results in folders, and in files."""
    found = []
    for place in places:
        files = sorted(place.glob("*.json")) if place.is_dir() else [place]
        if not files:
            raise InputError(f"{place} has no results; `panmodal eval MODEL TASK --out {place}` leaves some")
        found += [(file, read_result(file)) for file in files]
    return found


def read_result(file: Path) -> Result:
    """Raises InputError for what is no result."""
    try:
        return RESULT.validate_python(json.loads(file.read_bytes()))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(f"{file} is no result of `panmodal eval --out`: of {where}, {first['msg']}") from None
    except ValueError as error:
        raise InputError(f"{file} is no result of `panmodal eval --out`: {error}") from None


def replace_file(file: Path, content: bytes) -> None:
    """Writes a file whole, or not at all. Raises InputError if it cannot."""
    try:
        with replacing_file(file) as fresh, fresh.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from None


def _line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_told(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two differ, and what either has there"""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**new, **old}:
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
