"""Referring expressions: RefCOCO, RefCOCO+ and RefCOCOg, answered with a box."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from panmodal.data.index import opened
from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.layouts import fields, found, read_json, within
from panmodal.evaluation.regions import box_iou
from panmodal.evaluation.task import Example, Task

ASK = "Please provide the bounding box coordinate of the region this sentence describes:"
HIT = 0.5  # the IoU from which a box counts as right


class RefCoco(Task):
    """Things in COCO's pictures by what people call them (Yu et al., 2016; Mao et al., 2016): `refs(AUTHORS).p` and
    `instances.json`. An answer's first four numbers are a box's left, top, right and bottom, in pixels, or, if none is
    over 1, as shares of width and height. A sentence is an example, its id `sent_id`. `accuracy` counts boxes with an
    IoU of 0.5 at least."""

    max_tokens = 48

    def __init__(self, name: str, authors: str, splits: Sequence[str]) -> None:
        self.name, self.authors = name, authors
        self.splits = tuple(splits)

    def examples(self, data: Path, split: str) -> list[Example]:
        path = found(data, f"{self.name}/refs({self.authors}).p", f"refs({self.authors}).p")
        content = path.parent / "instances.json"
        images, notes = fields(read_json(content), content, "images", "annotations")
        pictures = {image["id"]: image for image in images}
        boxes = {note["id"]: note["bbox"] for note in notes}
        folder = within(data, "images/mscoco/images/train2014", "images/train2014", "train2014", "coco/train2014")
        examples = []
        for ref in _plain_pickle(path):
            note, image, sentences, part = fields(ref, path, "ann_id", "image_id", "sentences", "split")
            if part != split:
                continue
            if note not in boxes or image not in pictures:
                raise InputError(f"{content} has not the box {note} or the picture {image} that {path.name} names")
            left, top, width, height = boxes[note]
            (name,) = fields(pictures[image], content, "file_name")
            about = {"size": fields(pictures[image], content, "width", "height")}
            for sentence in sentences:
                key, text = fields(sentence, path, "sent_id", "sent")
                parts = (Image(folder / name), f"{ASK} {text}")
                examples.append(Example(str(key), parts, (left, top, left + width, top + height), about))
        if not examples:
            raise InputError(f"{path} has nothing of the split {split}")
        return examples

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            box = read_box(answers[example.id], *example.about["size"])
            iou = _iou(example, answers[example.id])
            units.append({"accuracy": iou >= HIT, "mean_iou": iou, "unparsed": box is None})
        return tally(units)

    def mark(self, example: Example, answer: str) -> bool:
        return _iou(example, answer) >= HIT


def _iou(example: Example, answer: str) -> float:
    box = read_box(answer, *example.about["size"])
    return 0.0 if box is None else float(box_iou(torch.tensor([box]), torch.tensor([example.truth]))[0, 0])


def read_box(answer: str, width: int, height: int) -> tuple[float, float, float, float] | None:
    """The box in an answer, in pixels."""
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?|-?\.\d+", answer)[:4]]
    if len(numbers) < 4:
        return None
    across, down = (width, height) if max(numbers) <= 1 else (1, 1)
    left, top, right, bottom = numbers
    return left * across, top * down, right * across, bottom * down


class _Plain(pickle.Unpickler):
    """Reads what is made of plain values alone: nothing in a pickle that names code gets as far as being looked up"""

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"a pickle of plain values names no {module}.{name}; it is not read")


def _plain_pickle(path: Path) -> Any:
    with opened(path) as file:
        try:
            return _Plain(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
            raise InputError(f"{path} is no whole pickle: {error}") from None
