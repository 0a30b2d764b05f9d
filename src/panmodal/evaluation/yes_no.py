"""Benchmarks whose answers are yes or no: POPE, MME, HallusionBench, and NLVR's true or false."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image as Pil

from panmodal.data.index import opened
from panmodal.data.nlvr import BOXES, LOOK, ORDERS, QUESTION, Nlvr, nlvr
from panmodal.data.sample import Image, Said
from panmodal.errors import InputError, at
from panmodal.evaluation.bootstrap import Means, Score, named, tally
from panmodal.evaluation.layouts import fields, found, read_json, read_records, within
from panmodal.evaluation.metrics import says_yes, yes_no_rates
from panmodal.evaluation.task import BRIEFLY, Answer, Example, Made, Task, numbered

VERDICTS = {"true": True, "yes": True, "false": False, "no": False}


def verdict(answer: str) -> bool | None:
    """True or false, as an answer says by its first word of either kind; None if it has none."""
    told = re.search(rf"\b({'|'.join(VERDICTS)})\b", answer.lower())
    return VERDICTS[told[1]] if told else None


def truth(label: object) -> bool:
    told = VERDICTS.get(str(label).strip().lower())
    if told is None:
        raise InputError(f"the label is yes or no, or true or false, not {label!r}")
    return told


class Pope(Task):
    """Whether a thing is in the picture (Li et al., 2023): `coco_pope_KIND.json`, of three kinds, by which things are
    asked about that are not there. Answers are read as the authors do; a metric without a kind is the kinds' mean.

    LLaVA numbers the kinds' questions from 0, 10,000,000 and 20,000,000 on; the authors' files of answers, of one kind
    each, have no numbers, but the order of the questions."""

    KINDS = ("adversarial", "random", "popular")
    splits = ("all", *KINDS)
    fields = (("question_id", "text"), ("question_id", "answer"), ("question", "answer"))

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = []
        pictures = within(data, "val2014", "images/val2014", "coco/val2014")
        for kind in self.KINDS if split == "all" else [split]:
            name = f"coco_pope_{kind}.json"
            path = found(data, name, f"output/coco/{name}")
            for line in read_records(path):
                key, picture, asked, label = fields(line, path, "question_id", "image", "text", "label")
                with at(f"{path}, question {key}"):
                    parts = (Image(pictures / picture), f"{asked}\n{BRIEFLY}")
                    examples.append(Example(f"{kind}/{key}", parts, truth(label), {"kind": kind, "question": asked}))
        return examples

    def ids(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Sequence[str | None]:
        kinds = list(dict.fromkeys(example.about["kind"] for example in examples))
        if all(answer.id.isdecimal() for answer in answers):
            places = [divmod(int(answer.id), 10_000_000) for answer in answers]
            names = kinds if len(kinds) == 1 and not any(series for series, _ in places) else self.KINDS
            keys = [(names[series] if series < len(names) else "", key) for series, key in places]
            return [f"{kind}/{key}" if kind in ("", *kinds) else None for kind, key in keys]
        if len(kinds) > 1 or [example.about["question"] for example in examples] != [answer.id for answer in answers]:
            raise InputError(
                "answers without a question_id must be to the questions of one kind, in their order; name it by --split"
            )
        return [example.id for example in examples]

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            said, there = says_yes(answers[example.id]), example.truth
            shares = (said == there, said and there, said, there)
            units.append({f"{example.about['kind']} {i}": float(share) for i, share in enumerate(shares)})
        return tally(units, self._metrics)

    def mark(self, example: Example, answer: str) -> bool:
        return says_yes(answer) is example.truth

    def _metrics(self, means: Means) -> Means:
        kinds = [kind for kind in self.KINDS if f"{kind} 0" in means]
        rates = {kind: yes_no_rates(*(means[f"{kind} {i}"] for i in range(4))) for kind in kinds}
        metrics = {name: np.mean([rates[kind][name] for kind in kinds], axis=0) for name in rates[kinds[0]]}
        by_kind = {f"{kind}_{name}": rate for kind in kinds for name, rate in rates[kind].items()}
        return metrics | (by_kind if len(kinds) > 1 else {})


class Mme(Task):
    """Two questions a picture, in fourteen categories (Fu et al., 2023): the official tool's `CATEGORY.txt`, a line a
    question, with picture, question and answer between tabs; or the folders that the pictures are released in.

    A category's score is the percentage of questions answered right, and of pictures with both right, added up;
    `perception` and `cognition` are sums of categories. Answers, LLaVA's or the tool's files with one more column, are
    yes or no by their first four characters."""

    PERCEPTION = tuple("existence count position color posters celebrity scene landmark artwork OCR".split())
    COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
    CATEGORIES = (*PERCEPTION, *COGNITION)

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = [one for category in self.CATEGORIES for one in self._category(data, category)]
        if not examples:
            raise InputError(f"{data} has neither MME's files, as existence.txt, nor its folders of pictures")
        return examples

    def _category(self, data: Path, category: str) -> list[Example]:
        folder = within(data, f"MME_Benchmark_release_version/{category}", category)
        place = within(data, "eval_tool/Your_Results", "Your_Results") / f"{category}.txt"
        if place.is_file():
            rows = _columns(place, 3)
        elif folder == data:
            return []
        else:
            place = within(folder, "questions_answers_YN")
            rows = [[file.stem, *row] for file in sorted(place.glob("*.txt")) for row in _columns(file, 2)]
        pictures = {file.stem: file for file in within(folder, "images").glob("*") if file.suffix != ".txt"}
        keys = numbered(self._key(f"{category}/{name}", question) for name, question, *_ in rows)
        examples = []
        for number, (key, (name, question, label, *_)) in enumerate(zip(keys, rows, strict=True)):
            with at(f"{place}, question {number + 1}"):
                if rows[min(number ^ 1, len(rows) - 1)][0] != name or len(rows) % 2:
                    raise InputError(f"each picture has two questions, one after the other, and {name} has not")
                picture = Image(pictures.get(Path(name).stem, folder / name))
                about = {"category": category, "picture": f"{category} {number // 2}"}
                examples.append(Example(key, (picture, f"{question}\n{BRIEFLY}"), truth(label), about))
        return examples

    def read(self, path: Path) -> list[Answer]:
        if not path.is_dir():
            return super().read(path)
        files = [path / f"{category}.txt" for category in self.CATEGORIES]
        rows = [(file.stem, row) for file in files if file.is_file() for row in _columns(file, 4)]
        return [Answer(f"{category}/{row[0]}", row[3], row[1]) for category, row in rows]

    def ids(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Sequence[str]:
        return numbered(self._key(answer.id, answer.prompt) for answer in answers)

    def _key(self, picture: str, question: str) -> str:
        """A category, a picture's name, and a question without what it is followed by"""
        for rest in (BRIEFLY, "Please answer yes or no."):
            question = question.replace(rest, " ")
        category, *_, name = picture.split("/")
        return f"{category}/{name.partition('.')[0]}/{' '.join(question.split())}"

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        right: dict[str, list[bool]] = defaultdict(list)
        unparsed, categories = Counter[str](), {}
        for example in examples:
            told = self._told(answers[example.id])
            picture = example.about["picture"]
            categories[picture] = example.about["category"]
            right[picture].append(told is example.truth)
            unparsed[picture] += told is None
        units = []
        for picture, hits in right.items():
            name = categories[picture]
            units.append({f"{name} share": fmean(hits), f"{name} both": all(hits), "unparsed": unparsed[picture]})
        return tally(units, self._metrics)

    def mark(self, example: Example, answer: str) -> bool:
        return self._told(answer) is example.truth

    def _told(self, answer: str) -> bool | None:
        said = answer.lower()[:4]
        return "yes" in said or (False if "no" in said else None)

    def _metrics(self, means: Means) -> Means:
        there = [category for category in self.CATEGORIES if f"{category} share" in means]
        scores = {name: 100 * (means[f"{name} share"] + means[f"{name} both"]) for name in there}
        kinds = {"perception": self.PERCEPTION, "cognition": self.COGNITION}
        sums = {
            kind: np.sum([scores[name] for name in names if name in scores], axis=0)
            for kind, names in kinds.items()
            if any(name in scores for name in names)
        }
        return sums | {named(name): score for name, score in scores.items()}


def _columns(path: Path, least: int) -> list[list[str]]:
    """The lines of a file, between tabs"""
    with opened(path) as file:
        lines = file.read().decode("utf-8-sig", "replace").split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines if line.strip()]
    for row in rows:
        if len(row) < least:
            raise InputError(f"{path}: a line needs {least} columns, separated by tabs, and this is {row}")
    return rows


class HallusionBench(Task):
    """Yes or no about figures, real and edited, and without any (Guan et al., 2023): `HallusionBench.json`. `accuracy`
    (aAcc) counts questions, `figure_accuracy` (fAcc) figures with all their questions right, `question_accuracy` (qAcc)
    questions right about all their figures. Where there is no figure, an answer that is neither is right, as
    officially; there a language model judges answers, here their first yes or no."""

    KEY = ("category", "subcategory", "set_id", "figure_id", "question_id")

    def examples(self, data: Path, split: str) -> list[Example]:
        path, folder = found(data, "HallusionBench.json"), within(data, "hallusion_bench")
        examples = []
        for number, record in enumerate(read_json(path), 1):
            place = f"{path}, record {number}"
            key = tuple(map(str, fields(record, place, *self.KEY)))
            question, label, file = fields(record, place, "question", "gt_answer", "filename")
            shown: list[Said] = (
                [Image(folder / file.removeprefix("./").removeprefix("hallusion_bench/"))] if file else []
            )
            with at(place):
                right = truth({"1": "yes", "0": "no"}.get(str(label), label))
            parts = (*shown, f"{question}\n{BRIEFLY}")
            examples.append(Example("_".join(key), parts, right, {"key": key}))
        return examples

    def answer(self, record: Any, place: str) -> Answer:
        """Also a record of the data set with a `model_prediction` in it"""
        if isinstance(record, Mapping) and "model_prediction" in record:
            *key, text = map(str, fields(record, place, *self.KEY, "model_prediction"))
            return Answer("_".join(key), text)
        return super().answer(record, place)

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        hits: dict[tuple[str, ...], list[bool]] = defaultdict(list)
        units: list[dict[str, float]] = []
        for example in examples:
            category, subcategory, group, figure, question = example.about["key"]
            right = self.mark(example, answers[example.id])
            units.append({"accuracy": right, "unparsed": verdict(answers[example.id]) is None})
            hits["question_accuracy", category, subcategory, group, question].append(right)
            if _has_figure(example):
                hits["figure_accuracy", category, subcategory, group, figure].append(right)
        return tally([*units, *({name: all(rights)} for (name, *_), rights in hits.items())])

    def mark(self, example: Example, answer: str) -> bool:
        told = verdict(answer)
        return told is example.truth or (told is None and not _has_figure(example))


def _has_figure(example: Example) -> bool:
    category, _, _, figure, _ = example.about["key"]
    return bool(category != "VS" or figure != "0")


class NlvrTask(Task):
    """Whether sentences are true of pictures (NLVR, Suhr et al., 2017), of which a model first says what is in them;
    any split in the published layout. `accuracy` counts each of a sentence's six pictures, `consistency` the sentences
    with all their pictures right, as the official evaluation does. An answer that is neither true nor false is wrong,
    and counted in `unparsed`. `majority` is what one answer to all reaches."""

    splits = ("test", "dev", "hidden", "train")
    open_splits = True
    first = LOOK
    takes_shots = False
    max_tokens = 256

    def examples(self, data: Path, split: str) -> list[Example]:
        source = nlvr(data, split)
        examples = []
        for index in range(source.size):
            line, order = divmod(index, ORDERS)
            told = source.told[line]
            with at(source.place(index)):
                label = truth(told["label"])
            boxes = (Made(partial(_box, source, index, number)) for number in range(BOXES))
            asked, key = str(told["sentence"]).strip(), str(told["identifier"])
            parts: tuple[Said, ...] = (*boxes, f"{asked} {QUESTION}")
            examples.append(Example(f"{key}-{order}", parts, label, {"sentence": key.partition("-")[0]}))
        return examples

    def read(self, path: Path) -> list[Answer]:
        """Also the official `SPLIT-IDENTIFIER-K.png,true`, one a line."""
        if path.suffix != ".csv":
            return super().read(path)
        with opened(path) as file:
            lines = [line.split(",") for line in file.read().decode("utf-8", "replace").split()]
        for line in lines:
            if len(line) != 2:
                raise InputError(f"{path}: a line is a picture's name and true or false, not {','.join(line)!r}")
        return [Answer(name.partition(".")[0].partition("-")[2], text) for name, text in lines]

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        sentences: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
        for example in examples:
            told = verdict(answers[example.id])
            sentences[example.about["sentence"]].append((told is example.truth, example.truth, told is None))
        units = []
        for judged in sentences.values():
            right, true, unread = map(sum, zip(*judged, strict=True))
            shares = {"right": right, "true": true, "pictures": len(judged), "unparsed": unread}
            units.append({**shares, "consistency": right == len(judged)})
        return tally(units, lambda means: self._metrics(means, len(units)))

    def mark(self, example: Example, answer: str) -> bool:
        return verdict(answer) is example.truth

    def _metrics(self, means: Means, sentences: int) -> Means:
        true = means["true"] / means["pictures"]
        return {
            "accuracy": means["right"] / means["pictures"],
            "consistency": means["consistency"],
            "majority": np.maximum(true, 1 - true),
            "unparsed": means["unparsed"] * sentences,
        }


def _box(source: Nlvr, index: int, number: int) -> Pil.Image:
    """One of the boxes in a picture"""
    return source.sample(index).images[number].pixels
