"""Readers of data sets that are records: one class for each way in which records are kept in a file.

A reader gives one sample at a time by its number, so that order, resuming and skipping are the caller's, and holds
where its records lie, not the records. A sample that cannot be read raises InputError with its place in the file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from panmodal.data.index import indexed, lines, opened, records
from panmodal.data.records import form_of, to_sample
from panmodal.data.sample import Sample
from panmodal.errors import InputError, at

LOOKED_AT = 100  # of the first records, to find out what they are
BESIDE = ("", "images", "pictures")  # where a file's pictures may lie, from its own folder


class Source(Protocol):
    """Samples by number. `size` is how many there are, None for as many as one asks for."""

    @property
    def size(self) -> int | None: ...

    def sample(self, index: int) -> Sample: ...


class Records(ABC):
    """A source whose samples are made of records; relative paths of pictures begin in `folder`."""

    folder: Path

    @property
    @abstractmethod
    def size(self) -> int: ...

    @abstractmethod
    def record(self, index: int) -> Any:
        """A record as it stands in the file."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Which file it stands in, and where."""

    def sample(self, index: int) -> Sample:
        place = self.place(index)
        with at(place):
            sample = to_sample(self.record(index), self.folder)
        return replace(sample, place=place)


class JsonLines(Records):
    """A record a line."""

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        self.starts = indexed(path, lines)
        if not len(self.starts):
            raise InputError(f"{path} is empty")
        self.folder = folder or picture_folder(self, path.parent)

    @property
    def size(self) -> int:
        return len(self.starts)

    def record(self, index: int) -> Any:
        with opened(self.path) as file:
            file.seek(int(self.starts[index]))
            return parsed(file.readline())

    def place(self, index: int) -> str:
        return f"{self.path}, line {index + 1}"


class JsonList(Records):
    """One JSON list of records."""

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        self.spans = indexed(path, records)
        if not len(self.spans):
            raise InputError(f"{path} must hold a list of records, and it holds none")
        self.folder = folder or picture_folder(self, path.parent)

    @property
    def size(self) -> int:
        return len(self.spans)

    def record(self, index: int) -> Any:
        start, end = map(int, self.spans[index])
        with opened(self.path) as file:
            file.seek(start)
            return parsed(file.read(end - start))

    def place(self, index: int) -> str:
        return f"{self.path}, record {index + 1}"


def parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from None


def picture_folder(source: Records, folder: Path) -> Path:
    """The folder that the pictures' names begin in: beside the file, or `images` or `pictures` there, whichever has the
    first picture. Raises InputError if none of the first records has a form that is known."""
    reasons: list[InputError] = []
    known = False
    for index in range(min(source.size, LOOKED_AT)):
        try:
            with at(source.place(index)):
                record = source.record(index)
                known = known or form_of(record) is not None
                for place in BESIDE:
                    named = [m.source for m in to_sample(record, folder / place).media if isinstance(m.source, Path)]
                    if named and named[0].is_file():
                        return folder / place
        except InputError as error:
            reasons.append(error)
    if reasons and not known:
        raise reasons[0]
    return folder
