"""Finding and reading the files of published data sets."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from panmodal.data.index import opened
from panmodal.data.readers import parsed
from panmodal.errors import InputError, at

TABLES = {".tsv": "\t", ".csv": ","}


def found(data: Path, *places: str) -> Path:
    """The first file of those that a data set's parts go by: names or patterns, in its folder or in one there."""
    for place in (*places, *(f"*/{place}" for place in places)):
        there = sorted(data.glob(place))
        if len(there) > 1:
            names = ", ".join(str(one.relative_to(data)) for one in there[:6])
            raise InputError(f"{data} has {len(there)} of {place}: {names}; name one by --split")
        if there:
            return there[0]
    wanted = " nor ".join(places)
    raise InputError(f"{data} has {'neither ' if len(places) > 1 else 'no '}{wanted}; --data is the data set's folder")


def maybe(data: Path, *places: str) -> Path | None:
    """The first of some files, if there is one there."""
    tried = (*places, *(f"*/{place}" for place in places))
    return next((path for place in tried for path in sorted(data.glob(place))), None)


def within(data: Path, *names: str) -> Path:
    """The first of some subfolders that there is, else the folder itself."""
    return next((data / name for name in names if (data / name).is_dir()), data)


def read_json(path: Path) -> Any:
    with opened(path) as file, at(str(path)):
        return parsed(file.read())


def read_records(path: Path) -> Any:
    """What a file of JSON holds: one value, or a list of those that stand one a line."""
    with opened(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except ValueError as error:
        if text.lstrip()[:1] == b"[":
            raise InputError(f"{path} is not JSON: {error}") from None
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            with at(f"{path}, line {number}"):
                rows.append(parsed(line))
    return rows


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table with tabs or commas, as its suffix says, whose first line names its columns."""
    csv.field_size_limit(sys.maxsize)  # a field may be a picture
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file, delimiter=TABLES[path.suffix]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None


def read_parquet(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of Parquet files; pictures as they are stored, not decoded."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise InputError("Parquet needs `pip install 'panmodal[hf]'`") from None
    for path in paths:
        try:
            for batch in ParquetFile(path).iter_batches(64):
                yield from batch.to_pylist()
        except (OSError, ArrowException) as error:
            raise InputError(f"{path} cannot be read as Parquet: {error}") from None


def fields(record: Any, place: Path | str, *names: str) -> tuple[Any, ...]:
    """Fields that a record must have."""
    missing = [name for name in names if not isinstance(record, Mapping) or name not in record]
    if missing:
        raise InputError(f"{place}: a record needs {missing[0]!r}, and this is {str(record)[:80]!r}")
    return tuple(record[name] for name in names)
