"""Where the records of a file lie, so that any of them is read without the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from panmodal.errors import InputError

Numbers = NDArray[np.int64]

BLOCK = 2**24  # bytes looked at a time
KEPT = 2**28  # bytes of a file from which its index is kept on disk


def cache_folder() -> Path:
    """`$PANMODAL_CACHE`, or panmodal's folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PANMODAL_CACHE") or Path(base) / "panmodal")


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror})") from None


@contextmanager
def replacing_file(file: Path) -> Iterator[Path]:
    """A fresh file to write, which takes the place of `file` when it is whole."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    yield fresh
    fresh.replace(file)


def indexed(path: Path, make: Callable[[Path], Numbers]) -> Numbers:
    """A file's index, which is kept in the user's cache folder if the file is big, until the file changes."""
    told = path.stat()
    if told.st_size < KEPT:
        return make(path)
    what = f"{make.__name__} {path.resolve()} {told.st_size} {told.st_mtime_ns}"
    file = cache_folder() / "indexes" / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.npy"
    try:
        stored: Numbers = np.load(file)
        return stored
    except (OSError, ValueError):  # none yet, or damaged
        found = make(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(file) as fresh, fresh.open("wb") as out:
        np.save(out, found)
    return found


def lines(path: Path) -> Numbers:
    """Where each line begins, [lines]; blank ones at the end are none."""
    found, place = [np.zeros(1, np.int64)], 0
    with opened(path) as file:
        while block := file.read(BLOCK):
            found.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + place + 1)
            place += len(block)
        starts = np.concatenate(found)
        while len(starts):
            file.seek(int(starts[-1]))
            if file.readline(BLOCK).strip():
                break
            starts = starts[:-1]
    return starts


def records(path: Path) -> Numbers:
    """Where each object in a JSON list begins and ends, [records, 2]. Raises InputError if the list is not whole."""
    found: list[Numbers] = []
    place, depth, quotes, rest = 0, 0, 0, b""
    with opened(path) as file:
        while block := file.read(BLOCK):
            signs = np.frombuffer(rest + block, np.uint8)
            escaped = _escaped(signs)
            rest = b"\\" if len(signs) in escaped[-1:] else b""  # which escapes what is in the next block
            signs = signs[: len(signs) - len(rest)].copy()
            signs[escaped[: len(escaped) - len(rest)]] = 0  # ends no string
            ends = np.flatnonzero(signs == ord('"'))
            curly = signs | 0x20  # of [ and ], which need not be told apart from { and }
            brackets = np.flatnonzero((curly == ord("{")) | (curly == ord("}")))
            brackets = brackets[(quotes + np.searchsorted(ends, brackets)) % 2 == 0]
            opening = curly[brackets] == ord("{")
            depths = depth + np.cumsum(np.where(opening, 1, -1))
            edges = np.where(opening, depths == 2, depths == 1)
            found.append(place + brackets[edges] + ~opening[edges])
            place, quotes = place + len(signs), quotes + len(ends)
            depth = int(depths[-1]) if len(depths) else depth
    edges = np.concatenate([*found, np.zeros(0, np.int64)])
    if depth or quotes % 2 or len(edges) % 2:
        raise InputError(f"{path} is not whole JSON: {abs(depth)} brackets are not closed; it may be cut off")
    return edges.reshape(-1, 2)


def _escaped(signs: NDArray[np.uint8]) -> Numbers:
    """The places after every other backslash of a row of them"""
    slashes = np.flatnonzero(signs == ord("\\"))
    first = np.diff(slashes, prepend=-2) != 1  # of a row
    begun = np.maximum.accumulate(np.where(first, np.arange(len(slashes)), 0))
    escaped: Numbers = slashes[(np.arange(len(slashes)) - begun) % 2 == 0] + 1
    return escaped
