"""Benchmarks of one label out of many, told by likeness (Radford et al., 2021): ImageNet's folders and ESC-50."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from panmodal.data.media import Audio
from panmodal.data.sample import Image
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.layouts import fields, found, maybe, read_json, read_table
from panmodal.evaluation.task import ROWS, Example, Task
from panmodal.families import Binding, Contrastive

TOP = 5


class Labels(Task):
    """An answer is a label, or several, one a line, the likeliest first: `accuracy` is of the first, `top_5_accuracy`
    of the first five."""

    kinds = (Contrastive, Binding)

    def ask(self, model: Any, examples: Sequence[Example]) -> Iterator[str]:
        labels: list[str] = examples[0].about["labels"]
        names = model.embed_labels(labels) if isinstance(model, Contrastive) else model.embed(labels)
        for start in range(0, len(examples), ROWS):
            some = examples[start : start + ROWS]
            likeness = model.embed([medium for one in some for medium in one.messages[0].media]) @ names.T
            best = likeness.topk(min(TOP, len(labels))).indices.tolist()
            yield from ("\n".join(labels[i] for i in row) for row in best)

    def mark(self, example: Example, answer: str) -> bool:
        return bool(answer.partition("\n")[0].strip() == example.truth)

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            said = [line.strip() for line in answers[example.id].splitlines()][:TOP]
            shares = {"accuracy": self.mark(example, answers[example.id]), "top_5_accuracy": example.truth in said}
            units.append({**shares, "unparsed": not {*said} & {*example.about["labels"]}})
        return tally(units)


class ImageNet(Labels):
    """Pictures in a folder a class, as ImageNet (Deng et al., 2009) is unpacked: `SPLIT/n01440764/….JPEG`. Where
    folders are WordNet's numbers, names are those of `imagenet_class_index.json` or `LOC_synset_mapping.txt`."""

    splits = ("val", "train", "test")

    def examples(self, data: Path, split: str) -> list[Example]:
        folder = data / split if (data / split).is_dir() else data
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        names = self._names(data, classes)
        labels = list(names.values())
        return [
            Example(f"{kind}/{file.stem}", (Image(file),), names[kind], {"labels": labels})
            for kind in classes
            for file in sorted((folder / kind).iterdir())
        ]

    def _names(self, data: Path, classes: Sequence[str]) -> dict[str, str]:
        if not classes:
            raise InputError(f"{data} has no folders of classes")
        names: dict[str, str] = {}
        if index := maybe(data, "imagenet_class_index.json"):
            names = {number: name.replace("_", " ") for number, name in read_json(index).values()}
        elif mapping := maybe(data, "LOC_synset_mapping.txt"):
            lines = (line.partition(" ") for line in mapping.read_text().splitlines())
            names = {number: text.partition(",")[0] for number, _, text in lines}
        elif not any(kind[0] == "n" and kind[1:].isdecimal() for kind in classes):
            return {kind: kind for kind in classes}
        missing = [kind for kind in classes if kind not in names]
        if missing:
            raise InputError(
                f"{missing[0]} has no name; put imagenet_class_index.json or LOC_synset_mapping.txt into {data}"
            )
        return {kind: names[kind] for kind in classes}


class Esc50(Labels):
    """Fifty kinds of sounds (Piczak, 2015): `meta/esc50.csv` and `audio/`; a split is all, the ten kinds of ESC-10, or
    a fold."""

    splits = ("all", "esc10", "1", "2", "3", "4", "5")

    def examples(self, data: Path, split: str) -> list[Example]:
        path = found(data, "esc50.csv")
        rows = [fields(row, path, "filename", "fold", "category", "esc10") for row in read_table(path)]
        if split == "esc10":
            rows = [row for row in rows if row[3] == "True"]
        labels = sorted({kind.replace("_", " ") for _, _, kind, _ in rows})
        return [
            Example(name, (Audio(data / "audio" / name),), kind.replace("_", " "), {"labels": labels})
            for name, fold, kind, _ in rows
            if split in ("all", "esc10", fold)
        ]
