"""Readers of data sets: panmodal's JSONL, and LLaVA's JSON.

A reader gives one sample at a time by its number, so that order, resuming and skipping are the
caller's. A sample that cannot be read raises InputError with its place in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from panmodal.data.sample import Image, Message, Sample, Text
from panmodal.errors import InputError

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class Source(Protocol):
    """Samples by number. `size` is how many there are, None for as many as one asks for."""

    @property
    def size(self) -> int | None: ...

    def sample(self, index: int) -> Sample: ...


class JsonLines:
    """A sample a line: panmodal's form (`messages`) or LLaVA's (`conversations`)."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images or path.parent
        self.starts = [0]
        with _opened(path) as file:
            for line in file:
                self.starts.append(self.starts[-1] + len(line))
        self.starts.pop()
        if not self.starts:
            raise InputError(f"{path} is empty")

    @property
    def size(self) -> int:
        return len(self.starts)

    def sample(self, index: int) -> Sample:
        with _opened(self.path) as file:
            file.seek(self.starts[index])
            line = file.readline()
        return _placed(f"{self.path}, line {index + 1}", _parsed(line), self.images)


class JsonList:
    """One JSON list of samples, in LLaVA's form or panmodal's; pictures lie in `images`."""

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path, self.images = path, images or path.parent
        with _opened(path) as file:
            content = _parsed(file.read())
        if not isinstance(content, list) or not content:
            raise InputError(
                f"{path} must hold a list of samples" + (f": {content}" if isinstance(content, Broken) else "")
            )
        self.records = content

    @property
    def size(self) -> int:
        return len(self.records)

    def sample(self, index: int) -> Sample:
        return _placed(f"{self.path}, record {index + 1}", self.records[index], self.images)


def open_file(path: Path, images: Path | None = None) -> Source:
    """A data file by its suffix: `.jsonl`, one sample a line, or `.json`, a list."""
    if path.suffix not in (".jsonl", ".json"):
        raise InputError(f"{path} is neither .jsonl nor .json")
    return JsonLines(path, images) if path.suffix == ".jsonl" else JsonList(path, images)


def from_llava(record: Mapping[str, Any], folder: Path) -> Sample:
    """LLaVA's record: `image` (a path or several) and `conversations` of `from` and `value`, in which
    each `<image>` stands for the next picture. Raises InputError unless they match one to one."""
    paths = record.get("image", [])
    paths = [paths] if isinstance(paths, str) else list(paths)
    images = [Image(folder / path) for path in paths]
    messages, used = [], 0
    for turn in record["conversations"]:
        if not isinstance(turn, Mapping) or turn.get("from") not in SPEAKERS or not isinstance(turn.get("value"), str):
            raise InputError(f"a turn needs 'from' (human or gpt) and 'value', and this is {str(turn)[:80]!r}")
        parts: list[Image | Text] = []
        for i, text in enumerate(re.split(r"\s*<image>\s*", turn["value"])):
            if i > 0:
                if used < len(images):
                    parts.append(images[used])
                used += 1
            if text:
                parts.append(Text(text))
        messages.append(Message(SPEAKERS[turn["from"]], tuple(parts)))
    if used != len(images):
        raise InputError(f"the record has {len(images)} pictures and its text {used} placeholders <image>")
    about = {k: v for k, v in record.items() if k not in ("image", "conversations")}
    return Sample(tuple(messages), about)


class Broken(str):
    """Why a piece of JSON could not be read."""


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror})") from None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        return Broken(error)


def _placed(place: str, record: Any, folder: Path) -> Sample:
    try:
        if isinstance(record, Broken):
            raise InputError(f"not JSON: {record}")
        if isinstance(record, Mapping) and isinstance(record.get("conversations"), list):
            return from_llava(record, folder)
        return Sample.from_json(record, folder)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
