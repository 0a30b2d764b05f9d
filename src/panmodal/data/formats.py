"""Which reader a data set is for: found out from what is in it, and never guessed."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panmodal.data.archives import Shards, expanded, members
from panmodal.data.folders import CocoCaptions, Table, is_coco
from panmodal.data.index import opened
from panmodal.data.nlvr import LINE, Nlvr, is_split
from panmodal.data.readers import JsonLines, JsonList, Source
from panmodal.data.tables import parquet, saved
from panmodal.errors import InputError

TABLES = (".csv", ".tsv")
BOM = b"\xef\xbb\xbf"
SEVERAL = (".tar", ".parquet")  # files that are read together
KNOWN = (
    "a .jsonl or .json of records, COCO's captions_….json, a .csv, webdataset's .tar shards, .parquet, a folder that "
    "Dataset.save_to_disk wrote, and NLVR's folders and tars"
)


def open_data(name: str | Path, folder: Path | None = None) -> Source:
    """A data set: a file, a folder, or a pattern of shards (`cc-{000..012}.tar`, `data/*.parquet`).

    `folder` is where its pictures lie; by default beside it, or in `images` or `pictures` there. Raises InputError
    that says what was found and what is known, if it is none of these or could be several.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, folder)
    paths = expanded(str(name))
    if len(paths) == 1:
        return _file(paths[0], folder)
    suffixes = {path.suffix for path in paths}
    if suffixes == {".tar"}:
        return _tars(paths)
    if suffixes == {".parquet"}:
        return parquet(paths)
    raise InputError(
        f"{name!r} names {len(paths)} files that end in {', '.join(sorted(suffixes))}; of .tar and of .parquet several "
        "are read as one, of others name one, or list them in a recipe"
    )


def _folder(path: Path, folder: Path | None) -> Source:
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(one.parent.name for one in path.glob("*/dataset_info.json")))
        raise InputError(f"{path} holds the splits {splits}; name one of them, as {path}/SPLIT")
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return saved(path)
    known = (".jsonl", ".json", *TABLES, *SEVERAL)
    found = sorted(one for place in ("*", "annotations/captions_*") for one in path.glob(place) if one.suffix in known)
    for suffix in SEVERAL:
        if found and all(one.suffix == suffix for one in found):
            return _tars(found) if suffix == ".tar" else parquet(found)
    if len(found) != 1:
        there = ", ".join(str(one.relative_to(path)) for one in found[:8]) or "none"
        raise InputError(f"{path} must hold one data set, and it has {len(found)}: {there}; known: {KNOWN}")
    return _file(found[0], folder)


def _file(path: Path, folder: Path | None) -> Source:
    with opened(path) as file:
        begin = file.read(64)
        if not begin:
            raise InputError(f"{path} is empty")
        file.seek(0)
        sign = begin.removeprefix(BOM).lstrip()[:1]
        first = file.readline() if sign == b"{" else b""
    if path.suffix in TABLES:
        return Table(path, folder)
    if begin[:4] == b"PAR1":
        return parquet([path])
    if sign == b"[":
        return JsonList(path, folder)
    if sign == b"{":
        return _objects(path, first, folder)
    if path.suffix == ".tar" or tarfile.is_tarfile(path):
        return _tars([path])
    if path.suffix == ".jsonl":
        return JsonLines(path, folder)
    raise InputError(f"{path} begins with {begin[:8]!r}, which is no data set that panmodal reads; known: {KNOWN}")


def _objects(path: Path, first: bytes, folder: Path | None) -> Source:
    """A file of JSON objects: one a line, or one in all"""
    content: Any
    try:
        content = json.loads(first)
    except ValueError:
        if path.suffix == ".jsonl":
            return JsonLines(path, folder)  # its first line may be broken
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{path} is neither one JSON object nor one a line: {error}") from None
        if not is_coco(content):
            raise InputError(f"{path} is one JSON object, with {', '.join(content)[:80]}; known: {KNOWN}") from None
    if is_coco(content):
        return CocoCaptions(path, content, folder)
    if all(key in content for key in LINE):
        return Nlvr(path)
    return JsonLines(path, folder)


def _tars(paths: Sequence[Path]) -> Source:
    first = next(members(paths[0]), None)
    if first is None or not is_split(first.name):
        return Shards(paths)
    if len(paths) > 1:
        raise InputError(f"{', '.join(map(str, paths))} are splits of NLVR; name one of them")
    return Nlvr(paths[0])
