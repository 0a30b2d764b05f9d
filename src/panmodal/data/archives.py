"""Tars: webdataset's shards, read at any place without unpacking them, and the names of many of them."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from panmodal.data.index import Numbers, indexed, opened
from panmodal.data.readers import Records, parsed
from panmodal.data.records import CAPTIONS, PICTURES
from panmodal.errors import InputError

HEADER = 512  # bytes before a member's content, its name among them
SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "txt", "json")
TEXT, JSON = SUFFIXES.index("txt"), SUFFIXES.index("json")


class Member(NamedTuple):
    name: str
    start: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """The files in a tar, and where in it they lie. Raises InputError for what is no plain tar, or is cut off."""
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps them all
                if member.isfile():
                    yield Member(member.name, member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a tar ({error}); one that is compressed must be unpacked, as no place in it can "
            "be looked up"
        ) from None


def content(path: Path, start: int, size: int) -> bytes:
    with opened(path) as file:
        file.seek(start)
        return file.read(size)


def shard(path: Path) -> Numbers:
    """Of each file in a shard that is read: its sample, its suffix, and where it lies, [files, 4]. Files that follow
    each other and have one name up to the first dot are a sample, as webdataset has it."""
    found, before, number = [], None, -1
    for name, start, size in members(path):
        folder, _, file = name.rpartition("/")
        key, _, suffixes = file.partition(".")
        suffix = suffixes.rpartition(".")[2].lower()
        if key and suffix in SUFFIXES:
            number += (folder, key) != before
            before = folder, key
            found.append((number, SUFFIXES.index(suffix), start, size))
    return np.array(found, np.int64).reshape(-1, 4)


class Shards(Records):
    """Webdataset's shards: of each sample, pictures, and a `.txt`, their caption, or a `.json`, a record of any form
    to which the pictures are added."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self.folder = list(paths), paths[0].parent
        self.files = [indexed(path, shard) for path in paths]
        sizes = [int(files[-1, 0]) + 1 if len(files) else 0 for files in self.files]
        for path, size in zip(self.paths, sizes, strict=True):
            if not size:
                raise InputError(f"{path} has no samples: none of its files ends in {', '.join(SUFFIXES)}")
        self.ends = np.cumsum(sizes)

    @property
    def size(self) -> int:
        return int(self.ends[-1])

    def record(self, index: int) -> Any:
        path, files = self._of(index)
        record: dict[str, Any] = {}
        pictures, caption = [], None
        for _, suffix, start, size in files.tolist():
            data = content(path, start, size)
            if suffix == JSON:
                told = parsed(data)
                record |= told if isinstance(told, dict) else {}
            elif suffix == TEXT:
                caption = data.decode("utf-8", "replace").strip()
            else:
                pictures.append(data)
        if caption is not None:
            record = {**{k: v for k, v in record.items() if k not in CAPTIONS}, "caption": caption}
        if pictures:
            record = {**{k: v for k, v in record.items() if k not in PICTURES}, "images": pictures}
        return record

    def place(self, index: int) -> str:
        path, files = self._of(index)
        start = int(files[0, 2])
        header = content(path, start - HEADER, HEADER)
        try:
            name = tarfile.TarInfo.frombuf(header, "utf-8", "replace").name
        except tarfile.TarError:
            name = f"at byte {start}"
        return f"{path}, {name.rpartition('/')[2].partition('.')[0] or name}"

    def _of(self, index: int) -> tuple[Path, Numbers]:
        """A sample's shard, and its files there"""
        which = int(np.searchsorted(self.ends, index, side="right"))
        files = self.files[which]
        own = index - (int(self.ends[which - 1]) if which else 0)
        low, high = np.searchsorted(files[:, 0], [own, own + 1])
        return self.paths[which], files[low:high]


def expanded(pattern: str) -> list[Path]:
    """The files that a pattern names: `{000..012}` and `{a,b}` stand for several texts, `*` and `?` are as in a shell.
    Raises InputError, naming it, if one is missing."""
    pieces = re.split(r"\{([^{}]*)\}", pattern)  # text, what is in braces, text, …
    choices = [_choices(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    found: list[Path] = []
    for name in map("".join, product(*choices)):
        path = Path(name).expanduser()
        some = [path] if path.exists() else [Path(one) for one in sorted(glob(str(path)))]  # noqa: PTH207 (of any root)
        if not some:
            raise InputError(f"no data {name!r}" + (f", which {pattern!r} names" if name != pattern else ""))
        found += some
    return found


def _choices(inside: str) -> list[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
