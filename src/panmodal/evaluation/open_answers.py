"""Benchmarks that are answered with a word or a few: VQAv2, OK-VQA, TextVQA, GQA, DocVQA and ChartQA."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panmodal.data.sample import Image
from panmodal.evaluation.bootstrap import Score, named, tally
from panmodal.evaluation.layouts import fields, found, maybe, read_json, within
from panmodal.evaluation.short_answers import anls, exact, relaxed, textvqa_accuracy, vqa_accuracy
from panmodal.evaluation.task import BRIEFLY, Answer, Example, Task, numbered


class OpenAnswers(Task):
    """Questions of which each answer has a score from 0 to 1: the mean is `metric`, that of a `kind` by its name."""

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            value = float(self.mark(example, answers[example.id]))
            kind = example.about.get("kind")
            units.append({self.metric: value, **({named(kind): value} if kind else {})})
        return tally(units)


def example(key: object, picture: Path, question: str | None, truth: Any, kind: str | None = None) -> Example:
    """A question about a picture, if it is known what is asked, which scoring does not need"""
    asked = () if question is None else (f"{question}\n{BRIEFLY}",)
    return Example(
        str(key), (Image(picture), *asked), truth, {"kind": kind, "picture": picture.stem, "question": question}
    )


class Vqa(OpenAnswers):
    """COCO's pictures, ten answers to each question: VQAv2 (Goyal et al., 2017) and OK-VQA (Marino et al., 2019), as
    annotations and questions are published. Official answers: a list of question_id and answer."""

    splits = ("val2014", "train2014")

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def examples(self, data: Path, split: str) -> list[Example]:
        name = f"{self.prefix}mscoco_{split}_annotations.json"
        path = found(data, name)
        name = f"{self.prefix}OpenEnded_mscoco_{split}_questions.json"
        asked = _questions(maybe(data, name))
        folder = within(data, split, f"images/{split}", f"Images/mscoco/{split}", f"coco/{split}")
        examples = []
        for note in fields(read_json(path), path, "annotations")[0]:
            key, image, answers = fields(note, path, "question_id", "image_id", "answers")
            picture = folder / f"COCO_{split}_{image:012d}.jpg"
            kind = note.get("answer_type") if self.prefix else None
            told = [fields(one, path, "answer")[0] for one in answers]
            examples.append(example(key, picture, asked.get(str(key)), told, kind=kind))
        return examples

    def mark(self, example: Example, answer: str) -> float:
        return vqa_accuracy(answer, example.truth)


class TextVqa(OpenAnswers):
    """Text in scenes, ten answers to each question (Singh et al., 2019): `TextVQA_0.5.1_SPLIT.json`, or the same in
    VQA's form, `SPLIT_annotations_vqa_format.json`. LLaVA's answers have the picture as their question_id: they go by
    the question as well, or, where the data has no questions, by the order of a picture's."""

    splits = ("val", "train")

    def examples(self, data: Path, split: str) -> list[Example]:
        path = found(data, f"TextVQA_0.5.1_{split}.json", f"{split}_annotations_vqa_format.json")
        content = read_json(path)
        asked = _questions(maybe(data, f"{split}_questions_vqa_format.json"))
        folder = within(data, "train_images", "train_val_images/train_images")
        examples = []
        for note in content.get("data") or fields(content, path, "annotations")[0]:
            key, image, answers = fields(note, path, "question_id", "image_id", "answers")
            told = [one if isinstance(one, str) else fields(one, path, "answer")[0] for one in answers]
            question = note.get("question", asked.get(str(key)))
            examples.append(example(key, folder / f"{image}.jpg", question, told))
        return examples

    def ids(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Sequence[str]:
        known = {one.id for one in examples}
        if any(answer.id in known for answer in answers):
            return [answer.id for answer in answers]
        if all(one.about["question"] for one in examples) and all(answer.prompt for answer in answers):
            asked = {(one.about["picture"], one.about["question"].lower()): one.id for one in examples}
            return [next((asked[key] for key in _asked(answer) if key in asked), answer.id) for answer in answers]
        order = dict(zip(numbered(one.about["picture"] for one in examples), (one.id for one in examples), strict=True))
        return [order.get(key, key) for key in numbered(answer.id for answer in answers)]

    def mark(self, example: Example, answer: str) -> float:
        return textvqa_accuracy(answer, example.truth)


class Gqa(OpenAnswers):
    """Questions from scene graphs (Hudson and Manning, 2019): `SPLIT_questions.json`. Answers match exactly, but for
    case and a full stop. Official answers: a list of questionId and prediction."""

    splits = ("testdev_balanced", "val_balanced", "train_balanced", "testdev_all", "val_all")
    fields = (("question_id", "text"), ("questionId", "prediction"))

    def examples(self, data: Path, split: str) -> list[Example]:
        name = f"{split}_questions.json"
        path = found(data, name)
        folder = within(data, "images", "allImages/images")
        examples = []
        for key, told in read_json(path).items():
            question, answer, image = fields(told, f"{path}, question {key}", "question", "answer", "imageId")
            kind = told.get("types", {}).get("structural")
            examples.append(example(key, folder / f"{image}.jpg", question, answer, kind=kind))
        return examples

    def mark(self, example: Example, answer: str) -> float:
        return exact(answer, example.truth)


class DocVqa(OpenAnswers):
    """Questions about scanned documents (Mathew et al., 2021): `SPLIT_v1.0.json` or `SPLIT_v1.0_withQT.json`. Official
    answers: a list of questionId and answer."""

    splits = ("val", "train")
    fields = (("question_id", "text"), ("questionId", "answer"), ("question_id", "answer"))
    metric = "anls"

    def examples(self, data: Path, split: str) -> list[Example]:
        names = [f"{split}_v1.0{rest}.json" for rest in ("_withQT", "")]
        path = found(data, *names)
        folder = within(data, split, "spdocvqa_images")
        examples = []
        for note in fields(read_json(path), path, "data")[0]:
            key, question, image, answers = fields(note, path, "questionId", "question", "image", "answers")
            picture = folder / image if (folder / image).is_file() else folder / Path(image).name
            examples.append(example(key, picture, question, answers))
        return examples

    def mark(self, example: Example, answer: str) -> float:
        return anls(answer, example.truth)


class ChartQa(OpenAnswers):
    """Questions about charts (Masry et al., 2022), by people and made by a model: `SPLIT/SPLIT_human.json` and
    `SPLIT/SPLIT_augmented.json`, pictures in `SPLIT/png/`. Relaxed accuracy: a number may be 5 % off."""

    splits = ("test", "val", "train")
    KINDS = ("human", "augmented")

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = []
        for kind in self.KINDS:
            path = found(data, f"{split}/{split}_{kind}.json")
            for number, note in enumerate(read_json(path)):
                image, question, label = fields(note, path, "imgname", "query", "label")
                picture = path.parent / "png" / image
                examples.append(example(f"{kind}/{number}", picture, question, str(label), kind=kind))
        return examples

    def mark(self, example: Example, answer: str) -> float:
        return relaxed(answer.strip().removesuffix("."), example.truth)


def _questions(path: Path | None) -> dict[str, str]:
    """What is asked, by the questions' ids"""
    if path is None:
        return {}
    rows = fields(read_json(path), path, "questions")[0]
    return {str(key): question for key, question in (fields(row, path, "question_id", "question") for row in rows)}


def _asked(answer: Answer) -> list[tuple[str, str]]:
    """The picture, and each line of the prompt that may be the question"""
    prompt = answer.prompt.lower()
    within = re.findall(r"question: (.*?) short answer:", prompt, re.DOTALL)
    return [(answer.id, line) for line in (*prompt.split("\n"), *within)]
