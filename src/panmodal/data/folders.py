"""Pictures in folders, and what is said of them in one file: COCO's captions, and a table with commas."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panmodal.data.readers import Records, picture_folder
from panmodal.data.records import CAPTIONS, PICTURES, QUESTIONS, form_of
from panmodal.errors import InputError


def is_coco(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))


class CocoCaptions(Records):
    """COCO's captions (Lin et al., 2014; Chen et al., 2015): `annotations/captions_SPLIT.json` beside the folder
    `SPLIT` of pictures. A sample is one caption; a picture has about five."""

    def __init__(self, path: Path, content: Mapping[str, Any], folder: Path | None = None) -> None:
        self.path = path
        names = {image["id"]: image["file_name"] for image in content["images"]}
        try:
            self.said = [(names[a["image_id"]], a["caption"], a["image_id"], a["id"]) for a in content["annotations"]]
        except KeyError as error:
            raise InputError(
                f"{path} has annotations without a picture or a caption ({error}); of COCO, captions_….json is read"
            ) from None
        if not self.said:
            raise InputError(f"{path} has no captions")
        self.folder = folder or self._pictures(path.parent)

    def _pictures(self, beside: Path) -> Path:
        split = self.path.stem.removeprefix("captions_")
        tried = [
            base / inside for base in (beside, beside.parent) for inside in (split, f"images/{split}", "images", ".")
        ]
        first = self.said[0][0]
        for folder in tried:
            if (folder / first).is_file():
                return folder
        raise InputError(f"{self.path} tells of {first}, which is in none of {', '.join(map(str, tried))}")

    @property
    def size(self) -> int:
        return len(self.said)

    def record(self, index: int) -> Any:
        name, caption, image, own = self.said[index]
        return {"image": name, "caption": caption, "image_id": image, "id": own}

    def place(self, index: int) -> str:
        return f"{self.path}, annotation {self.said[index][3]}"


class Table(Records):
    """A picture a row, in a file with commas, semicolons or tabs, whose first line names the columns: a picture, and a
    caption, or a question and an answer."""

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                head = file.readline()
                file.seek(0)
                rows = csv.reader(file, delimiter=max(",;\t", key=head.count))
                self.columns = [name.strip() for name in next(rows, [])]
                self.rows = [(rows.line_num, row) for row in rows if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as a table: {error}") from None
        if form_of(dict.fromkeys(self.columns)) is None:
            raise InputError(
                f"{path} has the columns {', '.join(self.columns)}; it needs a picture ({', '.join(PICTURES)}) and a "
                f"caption ({', '.join(CAPTIONS)}), or a question ({', '.join(QUESTIONS)}) and an answer"
            )
        if not self.rows:
            raise InputError(f"{path} has no rows")
        self.folder = folder or picture_folder(self, path.parent)

    @property
    def size(self) -> int:
        return len(self.rows)

    def record(self, index: int) -> Any:
        row = self.rows[index][1]
        if len(row) != len(self.columns):
            raise InputError(f"the row has {len(row)} fields and the first line names {len(self.columns)}")
        return dict(zip(self.columns, row, strict=True))

    def place(self, index: int) -> str:
        return f"{self.path}, line {self.rows[index][0]}"
