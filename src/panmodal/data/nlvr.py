"""NLVR (Suhr et al., 2017): sentences that people wrote about pictures of three boxes, true or false.

The published layout is a folder, or a tar of it, for each split: `SPLIT/SPLIT.json`, a line a sentence, and
`SPLIT/images/*/SPLIT-IDENTIFIER-K.png`, the picture with its boxes in each of six orders. Each of the six is a sample,
of which each box is a picture: as a whole it is four times as wide as high, and vision models take squares. Of a line,
`structured_rep` says what is in the picture; it is not read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image as Pil

from panmodal.data.archives import content, members
from panmodal.data.index import opened
from panmodal.data.pictures import decode
from panmodal.data.readers import Records, parsed
from panmodal.errors import InputError, at

ORDERS = 6  # of the boxes in a picture
BOXES, GAP = 3, 0.5  # in a picture, from left to right; what lies between two of them, in boxes
LOOK = "What is in the boxes?"  # to be asked before
QUESTION = "True or false?"
LINE = ("sentence", "identifier", "structured_rep")  # the fields by which a line is known


def is_split(name: str) -> bool:
    """Whether a file in a tar is one that a split has."""
    return re.search(r"(^|/)([^/]+)/(\2\.json|images/.*\2-[^/]+-\d\.png)$", name) is not None


class Nlvr(Records):
    """A split, from its folder, its `SPLIT.json`, or its tar."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures: dict[str, Path | tuple[int, int]] = {}  # by name: a file, or where in the tar
        text = self._unpacked(path) if path.is_dir() or path.suffix == ".json" else self._packed(path)
        self.told = []
        for number, line in enumerate(text.splitlines(), 1):
            with at(f"{self.lines}, line {number}"):
                told = parsed(line)
                if not isinstance(told, dict) or "sentence" not in told or "identifier" not in told:
                    raise InputError(f"a line needs a sentence and an identifier, and this is {str(told)[:80]!r}")
                self.told.append({key: told.get(key) for key in ("sentence", "identifier", "label")})
        if not self.told:
            raise InputError(f"{self.lines} is empty")

    def _unpacked(self, path: Path) -> bytes:
        self.folder = path if path.is_dir() else path.parent
        own = self.folder / f"{self.folder.name}.json"
        self.lines = path if path != self.folder else own if own.exists() else next(self.folder.glob("*.json"), own)
        self.split = self.lines.stem
        self.pictures = {file.name: file for file in (self.folder / "images").rglob("*.png")}
        with opened(self.lines) as file:
            return file.read()

    def _packed(self, path: Path) -> bytes:
        self.folder, text = path.parent, b""
        for name, start, size in members(path):
            base = name.rpartition("/")[2]
            if base.endswith(".png"):
                self.pictures[base] = start, size
            elif base.endswith(".json"):
                self.split, text = base.removesuffix(".json"), content(path, start, size)
        self.lines = path / f"{self.split}/{self.split}.json"
        return text

    @property
    def size(self) -> int:
        return ORDERS * len(self.told)

    def record(self, index: int) -> Any:
        line, order = divmod(index, ORDERS)
        told = self.told[line]
        name = f"{self.split}-{told['identifier']}-{order}.png"
        if name not in self.pictures:
            raise InputError(f"there is no picture {name}")
        if told["label"] not in ("true", "false"):
            raise InputError(f"the label is true or false, not {told['label']!r}")
        where = self.pictures[name]
        picture = decode(content(self.path, *where) if isinstance(where, tuple) else where, name)
        about = {"identifier": told["identifier"], "order": order}
        question = f"{str(told['sentence']).strip()} {QUESTION}"
        return {"images": boxes(picture), "question": question, "answer": told["label"], **about}

    def place(self, index: int) -> str:
        line, order = divmod(index, ORDERS)
        return f"{self.lines}, line {line + 1}, picture {order}"


def nlvr(folder: Path, split: str) -> Nlvr:
    """A split under a folder: `SPLIT/`, or `SPLIT.tar`, or the folder itself."""
    for path in (folder / split, folder / f"{split}.tar", folder / f"{split}.json"):
        if path.exists():
            return Nlvr(path)
    raise InputError(f"{folder} has neither {split}/, {split}.tar nor {split}.json: no split of NLVR")


def boxes(picture: Pil.Image) -> list[Pil.Image]:
    """The boxes of a picture, from left to right."""
    side = picture.width / (BOXES + GAP * (BOXES - 1))
    lefts = [round(i * (1 + GAP) * side) for i in range(BOXES)]
    return [picture.crop((left, 0, left + round(side), picture.height)) for left in lefts]
