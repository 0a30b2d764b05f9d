"""Masks of published pictures and videos: COCO's things from points and boxes, and DAVIS's objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from PIL import UnidentifiedImageError
from torch import Tensor

from panmodal.data.masks import from_rle, mask_iou, to_rle
from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.layouts import fields, found, read_json, within
from panmodal.evaluation.regions import coco_precision, j_and_f
from panmodal.evaluation.segmentation import centre
from panmodal.evaluation.task import Example, Task
from panmodal.families import Segmenter

WAYS = ("point", "box")


class CocoMasks(Task):
    """COCO's things (Lin et al., 2014), each from a point, where it is deepest, and from its box, as SAM is measured
    (Kirillov et al., 2023): `annotations/instances_SPLIT.json`, without crowds. An answer is for either the mask that
    the model scores best, as run lengths, and its score. `point_mean_iou` and `box_mean_iou`; `box_ap`, … are COCO's
    average precisions, each mask with its thing's own category."""

    splits = ("val2017", "train2017", "val2014", "train2014")
    kinds = (Segmenter,)
    metric = "point_mean_iou"

    def examples(self, data: Path, split: str) -> list[Example]:
        path = found(data, f"annotations/instances_{split}.json", f"instances_{split}.json")
        images, notes = fields(read_json(path), path, "images", "annotations")
        folder = within(data, split, f"images/{split}")
        pictures = {image["id"]: image for image in images}
        examples = []
        for note in sorted(notes, key=lambda note: (note["image_id"], note["id"])):
            names = ("id", "image_id", "category_id", "bbox", "segmentation", "area")
            key, image, category, box, region, area = fields(note, path, *names)
            if note.get("iscrowd"):
                continue
            name, height, width = fields(pictures.get(image), path, "file_name", "height", "width")
            about = {"size": [height, width], "category": category, "area": area, "image": image, "region": region}
            examples.append(Example(str(key), (Image(folder / name),), box, about))
        return examples

    def ask(self, model: Segmenter, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        seen, of = None, None
        for one in examples:
            if of != one.about["image"]:
                seen, of = model.embed_image(one.messages[0].images[0]), one.about["image"]
            assert seen is not None
            left, top, width, height = one.truth
            box = (left, top, left + max(width, 1), top + max(height, 1))
            given = (model.segment(seen, [centre(_region(one))]), model.segment(seen, boxes=[box]))
            yield {
                way: {**to_rle(answer.masks[answer.best].cpu()), "score": float(answer.scores[answer.best])}
                for way, answer in zip(WAYS, given, strict=True)
            }

    def mark(self, example: Example, answer: Mapping[str, Any]) -> float:
        return _ious(example, answer)["point_mean_iou"]

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        scored = tally([_ious(one, answers[one.id]) for one in examples])
        notes, masks = [], []
        for one in examples:
            about, answer = one.about, answers[one.id]["box"]
            note = {"id": int(one.id), "image_id": about["image"], "category_id": about["category"]}
            notes.append(
                {**note, "segmentation": about["region"], "area": about["area"], "bbox": one.truth, "iscrowd": 0}
            )
            region = {"size": answer["size"], "counts": answer["counts"]}
            masks.append({**note, "segmentation": region, "score": answer["score"]})
        sizes = {one.about["image"]: one.about["size"] for one in examples}
        truth = {
            "info": {},
            "images": [{"id": key, "height": height, "width": width} for key, (height, width) in sizes.items()],
            "categories": [{"id": key} for key in sorted({note["category_id"] for note in notes})],
            "annotations": notes,
        }
        found = {f"box_{name}": value for name, value in coco_precision(truth, masks, "segm").items()}
        return Score({**scored.metrics, **found}, scored.intervals, None)


def _ious(example: Example, answer: Mapping[str, Any]) -> dict[str, float]:
    truth = _region(example)
    return {f"{way}_mean_iou": float(mask_iou(from_rle(answer[way]), truth)) for way in WAYS}


def _region(example: Example) -> Tensor:
    """The mask of a thing [H, W] bool, of polygons or run lengths"""
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError("COCO's regions need `pip install 'panmodal[coco]'`") from None
    region, (height, width) = example.about["region"], example.about["size"]
    lengths = mask.frPyObjects(region, height, width)
    return torch.from_numpy(mask.decode(mask.merge(lengths) if isinstance(lengths, list) else lengths) > 0)


class Davis(Task):
    """Objects in videos (Perazzi et al., 2016; Pont-Tuset et al., 2017), whose masks are there already: a folder for
    each sequence, of PNG files whose pixels are the numbers of objects, as in `Annotations/480p/`. The sequences are
    those of `ImageSets/2017/SPLIT.txt`; an example is an object. `j`, `f` and `j_and_f` are means over objects, of
    which the first frame, that is given, and the last do not count, as officially."""

    splits = ("val", "train")
    kinds = ()
    metric = "j_and_f"

    def examples(self, data: Path, split: str) -> list[Example]:
        names = found(data, f"ImageSets/2017/{split}.txt", f"ImageSets/2016/{split}.txt").read_text().split()
        folder = within(data, "Annotations/480p", "Annotations/Full-Resolution")
        examples = []
        for name in names:
            frames = sorted((folder / name).glob("*.png"))
            if len(frames) < 3:
                raise InputError(f"{folder / name} has {len(frames)} frames of masks, and 3 are the least")
            for number in np.unique(_numbers(frames[0]))[1:].tolist():
                examples.append(Example(f"{name}/{number}", (), number, {"frames": frames[1:-1]}))
        return examples

    def answers(self, path: Path, examples: Sequence[Example]) -> dict[str, str]:
        """By object, the folder of its sequence's masks"""
        if not path.is_dir():
            raise InputError(f"{path} is no folder; DAVIS's masks are one of a folder a sequence")
        return {one.id: str(path / name) for one in examples if (path / (name := one.id.partition("/")[0])).is_dir()}

    def mark(self, example: Example, answer: str) -> float:
        return _measures(example, Path(answer))["j_and_f"]

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        return tally([_measures(one, Path(answers[one.id])) for one in examples])


def _measures(example: Example, folder: Path) -> dict[str, float]:
    truths = [_numbers(frame) for frame in example.about["frames"]]
    masks = [_numbers(folder / frame.name) for frame in example.about["frames"]]
    if masks[0].shape != truths[0].shape:
        raise InputError(
            f"{folder} has masks of {masks[0].shape[::-1]} pixels, and the truth's are {truths[0].shape[::-1]}"
        )
    both = (torch.from_numpy(np.stack(some) == example.truth) for some in (masks, truths))
    return j_and_f(*both)


def _numbers(file: Path) -> np.ndarray[Any, Any]:
    """The object's number in each pixel of a PNG with a palette, or in grey [H, W]"""
    try:
        with Pil.open(file) as picture:
            pixels = np.asarray(picture)
    except (OSError, UnidentifiedImageError):
        raise InputError(f"{file} is no mask that can be read; there is a PNG for each frame") from None
    if pixels.ndim != 2:
        raise InputError(f"{file} has colours; a pixel of a mask is the number of an object, 0 for none")
    return pixels
