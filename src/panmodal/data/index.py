"""Where the records of a file lie, so that any of them is read without the others."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from panmodal.errors import InputError

Numbers = NDArray[np.int64]

BLOCK = 2**24  # bytes looked at a time
KEPT = 2**28  # bytes of a file from which its index is kept on disk
MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)  # a string, or a bracket outside of one


def cache_folder() -> Path:
    """`$PANMODAL_CACHE`, or panmodal's folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PANMODAL_CACHE") or Path(base) / "panmodal")


def opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror})") from None


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
    fresh = file.with_suffix(f".{os.getpid()}.new")
    with fresh.open("wb") as out:
        np.save(out, found)
    fresh.replace(file)
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
    found: list[int] = []
    depth = 0
    with opened(path) as file, _mapped(file) as content:
        for mark in MARKS.finditer(content):
            sign = mark[0][:1]
            if sign in b"{[":
                depth += 1
                if depth == 2:
                    found.append(mark.start())
            elif sign in b"}]":
                depth -= 1
                if depth == 1:
                    found.append(mark.end())
    if depth or len(found) % 2:
        raise InputError(f"{path} is not JSON: {abs(depth)} brackets are not closed; it may be cut off")
    return np.array(found, np.int64).reshape(-1, 2)


def _mapped(file: BinaryIO) -> Any:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        raise InputError(f"{file.name} is empty") from None
