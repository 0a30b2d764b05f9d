"""Benchmarks of captions: COCO, Flickr30k and NoCaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panmodal.data.index import opened
from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Means, Score, named, tally
from panmodal.evaluation.captions import caption_metrics, caption_units
from panmodal.evaluation.layouts import fields, found, read_json, within
from panmodal.evaluation.task import Answer, Example, Task

ASK = "Provide a one-sentence caption for the provided image."


class Captions(Task):
    """BLEU, ROUGE-L and CIDEr of one caption a picture. Official answers: a list of image_id and caption."""

    fields = (("question_id", "text"), ("image_id", "caption"))
    max_tokens = 64
    metric = "cider"

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = self.units(examples, answers)
        return tally(units, partial(caption_metrics, pictures=len(units)))

    def mark(self, example: Example, answer: str) -> float:
        return self.marks([example], {example.id: answer})[0]

    def marks(self, examples: Sequence[Example], answers: Mapping[str, str]) -> list[float]:
        return [unit["cider"] for unit in self.units(examples, answers)]

    def units(self, examples: Sequence[Example], answers: Mapping[str, str]) -> list[dict[str, float]]:
        return caption_units([answers[one.id] for one in examples], [one.truth for one in examples])


class CocoCaptions(Captions):
    """COCO (Chen et al., 2015): `annotations/captions_SPLIT.json`, or, as `karpathy`, the test split of
    `dataset_coco.json`."""

    splits = ("val", "val2014", "val2017", "train2014", "train2017", "karpathy")

    def examples(self, data: Path, split: str) -> list[Example]:
        if split == "karpathy":
            return karpathy(found(data, "dataset_coco.json"), "test", data, "cocoid")
        own = ("captions_[!t]*.json",) if split == "val" else ()  # a part of it, under a name of its own
        path = found(data, f"annotations/captions_{split}*.json", f"captions_{split}*.json", *own)
        name = path.stem.removeprefix("captions_")
        return coco(path, within(data, name, f"images/{name}", "images"))


class Flickr30k(Captions):
    """Flickr30k (Young et al., 2014): a split of Karpathy's `dataset_flickr30k.json`, or `all`, the authors'
    `results_20130124.token`. A picture's id is its file's name, with or without the suffix."""

    splits = ("test", "val", "train", "all")

    def examples(self, data: Path, split: str) -> list[Example]:
        if split != "all":
            return karpathy(found(data, "dataset_flickr30k.json"), split, data, "filename")
        path = found(data, "results_20130124.token")
        folder = within(data, "flickr30k-images", "flickr30k_images")
        said: dict[str, list[str]] = defaultdict(list)
        with opened(path) as file:
            for number, line in enumerate(file.read().decode().splitlines(), 1):
                place, tab, caption = line.partition("\t")
                if not tab or "#" not in place:
                    raise InputError(f"{path}, line {number}: a line is NAME#K, a tab and a caption, not {line[:80]!r}")
                said[place.partition("#")[0]].append(caption)
        return [_example(Path(name).stem, folder / name, captions) for name, captions in said.items()]

    def ids(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Sequence[str]:
        return [Path(answer.id).stem for answer in answers]


class NoCaps(Captions):
    """NoCaps (Agrawal et al., 2019): `nocaps_val_4500_captions.json`, in COCO's form; `cider` also of each domain, its
    n-grams weighed within it."""

    splits = ("val",)

    def examples(self, data: Path, split: str) -> list[Example]:
        name = "nocaps_val_4500_captions.json"
        return coco(found(data, name), within(data, "images", "val"))

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = dict(zip((one.id for one in examples), self.units(examples, answers), strict=True))
        domains: dict[str, list[Example]] = defaultdict(list)
        for one in examples:
            if domain := one.about.get("domain"):
                domains[f"{named(domain)}_cider"].append(one)
        for name, some in domains.items():
            for one, unit in zip(some, self.units(some, answers), strict=True):
                units[one.id][name] = unit["cider"]
        return tally(list(units.values()), lambda means: self._metrics(means, len(units)))

    def _metrics(self, means: Means, pictures: int) -> Means:
        by_domain = {name: mean for name, mean in means.items() if name.endswith("_cider")}
        return caption_metrics(means, pictures) | by_domain


def coco(path: Path, folder: Path) -> list[Example]:
    """Pictures and their captions in COCO's form."""
    images, notes = fields(read_json(path), path, "images", "annotations")
    said: dict[Any, list[str]] = defaultdict(list)
    for note in notes:
        picture, caption = fields(note, path, "image_id", "caption")
        said[picture].append(caption)
    examples = []
    for image in images:
        key, name = fields(image, path, "id", "file_name")
        if key in said:
            examples.append(_example(key, folder / name, said[key], image.get("domain")))
    if not examples:
        raise InputError(f"{path} has no captions of its pictures")
    return examples


def karpathy(path: Path, split: str, data: Path, key: str) -> list[Example]:
    """A split of Karpathy and Fei-Fei's files (2015)."""
    examples = []
    for image in fields(read_json(path), path, "images")[0]:
        own, name, sentences, part = fields(image, path, key, "filename", "sentences", "split")
        if part == split:
            folder = within(data, image.get("filepath") or "flickr30k-images", "images")
            captions = [fields(one, path, "raw")[0] for one in sentences]
            examples.append(_example(Path(str(own)).stem, folder / name, captions))
    if not examples:
        raise InputError(f"{path} has no pictures of the split {split}")
    return examples


def _example(key: object, picture: Path, captions: list[str], domain: str | None = None) -> Example:
    return Example(str(key), (Image(picture), ASK), captions, {"domain": domain})
