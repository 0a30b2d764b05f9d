"""Tables of Hugging Face's `datasets`, and Parquet, which it reads: pictures are columns of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panmodal.data.readers import Records, picture_folder
from panmodal.errors import InputError


class Rows(Records):
    """A record a row. `table` is a `datasets.Dataset`, or a list of plain records."""

    def __init__(self, table: Any, path: Path) -> None:
        self.table, self.path, self.folder = table, path, path if path.is_dir() else path.parent
        if not len(table):
            raise InputError(f"{path} has no rows")
        picture_folder(self, self.folder)  # for what it says of unknown columns

    @property
    def size(self) -> int:
        return len(self.table)

    def record(self, index: int) -> Any:
        row = self.table[index]
        if hasattr(row, "to_pylist"):  # Arrow's; pictures as they were stored, to be decoded like all others
            (row,) = row.to_pylist()
        return {key: value for key, value in row.items() if value is not None}

    def place(self, index: int) -> str:
        return f"{self.path}, row {index + 1}"


def saved(folder: Path) -> Rows:
    """A folder that `Dataset.save_to_disk` wrote; it is mapped into memory, not read."""
    return _rows("load_from_disk", str(folder), folder)


def parquet(paths: Sequence[Path]) -> Rows:
    """Parquet files, one table; `datasets` keeps a copy in its cache in which any row is at hand."""
    return _rows("from_parquet", [str(path) for path in paths], paths[0] if len(paths) == 1 else paths[0].parent)


def _rows(read: str, what: Any, path: Path) -> Rows:
    try:
        from datasets import Dataset  # not the package, for which a folder called so would do
    except ImportError:
        raise InputError("Hugging Face's tables and Parquet need `pip install 'panmodal[hf]'`") from None
    try:
        table = getattr(Dataset, read)(what).with_format("arrow")
    except Exception as error:  # there are many kinds, some of them bare
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    return Rows(table, path)
