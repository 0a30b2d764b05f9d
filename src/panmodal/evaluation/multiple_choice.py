"""Benchmarks with options to choose from: ScienceQA, MMBench, SEED-Bench, MMMU and MathVista."""

from __future__ import annotations

import ast
import re
from abc import abstractmethod
from base64 import b64decode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panmodal.data.sample import Image, Said
from panmodal.errors import InputError, at
from panmodal.evaluation.bootstrap import Score, named, tally
from panmodal.evaluation.choices import (
    LETTERS,
    mathvista_answer,
    mmbench_choice,
    mmmu_choice,
    mmmu_open,
    scienceqa_choice,
)
from panmodal.evaluation.layouts import fields, found, read_json, read_parquet, read_table, within
from panmodal.evaluation.task import BRIEFLY, Answer, Example, Task

SUBJECTS = {"natural science": "nat", "social science": "soc", "language science": "lan"}  # of ScienceQA
DISCIPLINES = {  # of MMMU
    "art_and_design": "Art Art_Theory Design Music",
    "business": "Accounting Economics Finance Manage Marketing",
    "science": "Biology Chemistry Geography Math Physics",
    "health_and_medicine": """Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy
        Public_Health""",
    "humanities_and_social_science": "History Literature Psychology Sociology",
    "tech_and_engineering": """Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power
        Materials Mechanical_Engineering""",
}
DISCIPLINE = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects.split()}
LETTER = "Answer with the option's letter from the given choices directly."


def asked(question: str, options: Mapping[str, str], hint: str = "") -> str:
    """A question with its options, as LLaVA puts it."""
    lines = [f"{letter}. {text}" for letter, text in options.items()]
    return "\n".join([*([hint] if hint else []), question, *lines, LETTER])


def lettered(choices: Sequence[object]) -> dict[str, str]:
    return {letter: str(text) for letter, text in zip(LETTERS, choices, strict=False)}


class Choices(Task):
    """Questions of which one answer is right. `about["kinds"]` are the names of the accuracies beside `accuracy` that a
    question counts in."""

    @abstractmethod
    def told(self, example: Example, answer: str) -> str | None:
        """What an answer means; None if it cannot be told."""

    def mark(self, example: Example, answer: str) -> bool:
        return bool(self.told(example, answer) == example.truth)

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            answer = answers[example.id]
            right = dict.fromkeys(["accuracy", *example.about["kinds"]], self.mark(example, answer))
            units.append({**right, "unparsed": self.told(example, answer) is None})
        return tally(units)


class ScienceQa(Choices):
    """Science questions from schools (Lu et al., 2022): `problems.json` and `pid_splits.json`. Answers are read by
    LLaVA's rule. `image_accuracy` is of the questions with a picture; the others are by subject, context and grade, as
    in the paper."""

    splits = ("test", "val", "train", "minival", "minitest")

    def examples(self, data: Path, split: str) -> list[Example]:
        data = within(data, "data/scienceqa")
        path, splits = found(data, "problems.json"), found(data, "pid_splits.json")
        problems = read_json(path)
        names = ("question", "choices", "answer", "image", "hint", "subject", "grade")
        examples = []
        for key in fields(read_json(splits), splits, split)[0]:
            (problem,) = fields(problems, path, key)
            question, choices, right, image, hint, subject, grade = fields(problem, f"{path}, {key}", *names)
            shown: list[Said] = [Image(within(data, "images") / split / key / image)] if image else []
            contexts = {"txt": hint, "img": image, "no": not hint and not image, "image_accuracy": image}
            kinds = [SUBJECTS[subject], "g1_6" if int(grade.removeprefix("grade")) <= 6 else "g7_12"]
            kinds += [name for name, there in contexts.items() if there]
            parts = (*shown, asked(question, lettered(choices), hint))
            about = {"kinds": kinds, "letters": LETTERS[: len(choices)]}
            examples.append(Example(key, parts, LETTERS[right], about))
        return examples

    def told(self, example: Example, answer: str) -> str | None:
        letter = scienceqa_choice(answer)
        return letter if letter and letter in example.about["letters"] else None


class MmBench(Choices):
    """Abilities, one by one (Liu et al., 2023): a table with pictures in base64. Each question comes again with its
    options turned round, a million further in `index`: in `accuracy` it is right if all of them are (CircularEval);
    `vanilla_accuracy` is of the first alone. The others are by `l2-category` and `category`."""

    splits = ("dev", "dev_cn")
    fields = (("question_id", "text"), ("index", "prediction"))
    TURN = 1_000_000

    def examples(self, data: Path, split: str) -> list[Example]:
        names = {"dev": ("dev_2*", "dev_en*", "DEV_EN*", "DEV"), "dev_cn": ("dev_cn*", "DEV_CN*")}[split]
        path = found(data, *(f"{name}_{rest}.tsv" for rest in names for name in ("mmbench", "MMBench")))
        rows = read_table(path)
        pictures = {row.get("index"): row.get("image") or "" for row in rows}
        examples = []
        for row in rows:
            key, question, right = fields(row, path, "index", "question", "answer")
            options = {letter: row[letter] for letter in LETTERS if row.get(letter) and row[letter] != "nan"}
            if right not in options:
                raise InputError(f"{path}, index {key}: the answer is one of {', '.join(options)}, not {right!r}")
            shown = row.get("image") or ""
            shown = pictures.get(shown, shown)  # another row's, by its index
            kinds = [named(row[name]) for name in ("l2-category", "category") if row.get(name)]
            parts = (Image(b64decode(shown)), asked(question, options, row.get("hint") or ""))
            examples.append(Example(str(key), parts, right, {"options": options, "kinds": kinds}))
        return examples

    def told(self, example: Example, answer: str) -> str | None:
        return mmbench_choice(answer, example.about["options"])

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        turns: dict[int, list[tuple[int, bool, bool]]] = defaultdict(list)
        kinds = {}
        for example in examples:
            told = self.told(example, answers[example.id])
            turn, question = divmod(int(example.id), self.TURN)
            turns[question].append((turn, told == example.truth, told is None))
            kinds[question] = example.about["kinds"]
        units = []
        for question, judged in turns.items():
            right = all(hit for _, hit, _ in judged)
            shares = {"accuracy": right, "vanilla_accuracy": min(judged)[1], **dict.fromkeys(kinds[question], right)}
            units.append({**shares, "unparsed": sum(unread for *_, unread in judged)})
        return tally(units)


class SeedBench(Choices):
    """Twelve dimensions of pictures and videos (Li et al., 2023): `SEED-Bench.json`. An answer is right if it is the
    letter, as officially; the others are by kind of medium and by dimension. A video is shown as its middle frame."""

    splits = ("all", "image", "video")
    fields = (("question_id", "text"), ("question_id", "prediction"))

    def examples(self, data: Path, split: str) -> list[Example]:
        path = found(data, "SEED-Bench.json")
        content = read_json(path)
        questions, types = fields(content, path, "questions", "question_type")
        dimensions = {number: named(name) for name, number in types.items()}
        names = ("question_id", "question", "answer", "data_id", "data_type", "question_type_id")
        examples = []
        for record in questions:
            key, question, right, file, medium, dimension = fields(record, path, *names)
            if split not in ("all", medium):
                continue
            options = dict(zip("ABCD", fields(record, path, *(f"choice_{c}" for c in "abcd")), strict=True))
            picture = data / f"SEED-Bench-image/{file}" if medium == "image" else self._frame(data, key, file)
            kinds = [f"{medium}_accuracy", dimensions.get(dimension, f"dimension_{dimension}")]
            examples.append(Example(str(key), (Image(picture), asked(question, options)), right, {"kinds": kinds}))
        return examples

    def _frame(self, data: Path, key: object, file: str) -> Path:
        return data / "SEED-Bench-video-image" / f"{key}.png"

    def told(self, example: Example, answer: str) -> str | None:
        return answer.strip() if answer.strip() in tuple("ABCD") else None


class Mmmu(Choices):
    """College exams (Yue et al., 2024): Parquet as on the hub, a folder a subject, or `answer_dict_val.json`. Answers
    are read by the official rules, without their coin: where no option can be told, the answer is wrong. Official
    answers: one object from ids to what was parsed, or a folder a subject with `output.json`, raw. Accuracies are also
    by discipline and subject."""

    splits = ("validation", "dev")
    fields = (("question_id", "text"), ("id", "response"))

    def examples(self, data: Path, split: str) -> list[Example]:
        tables = sorted([*data.glob(f"*/{split}-*.parquet"), *data.glob(f"{split}-*.parquet")])
        if tables:
            return [self._row(row, f"{data}, {split}") for row in read_parquet(tables)]
        name = "answer_dict_val.json"
        path = found(data, name)
        examples = []
        for key, told in read_json(path).items():
            kind, right = fields(told, f"{path}, {key}", "question_type", "ground_truth")
            examples.append(self._example(key, (), kind, right, {}))
        return examples

    def _row(self, row: Mapping[str, Any], place: str) -> Example:
        key, question, kind, right = fields(row, place, "id", "question", "question_type", "answer")
        with at(f"{place}, {key}"):
            options = lettered(_listed(row.get("options") or "[]"))
            text = asked(question, options) if options else f"{question}\n{BRIEFLY}"
            pieces = re.split(r"<image (\d)>", text)  # text, number, text, …
            pictures = [row.get(f"image_{number}") for number in pieces[1::2]]
            if any(picture is None for picture in pictures):
                raise InputError(f"the question names pictures {', '.join(pieces[1::2])}, of which some are not there")
            parts: list[Said] = []
            for piece, picture in zip(pieces[::2], [*pictures, None], strict=True):
                parts += [piece] if piece.strip() else []
                parts += [Image(picture["bytes"])] if picture else []
        return self._example(key, tuple(parts), kind, _listed(right) if right[:1] == "[" else right, options)

    def _example(self, key: str, parts: tuple[Said, ...], kind: str, right: Any, options: dict[str, str]) -> Example:
        subject = "_".join(key.split("_")[1:-1])
        if subject not in DISCIPLINE:
            raise InputError(f"{key!r} is no question of MMMU; they are called validation_SUBJECT_NUMBER")
        kinds = [DISCIPLINE[subject], named(subject)]
        about = {"open": kind != "multiple-choice", "options": options, "kinds": kinds}
        return Example(key, parts, right, about)

    def read(self, path: Path) -> list[Answer]:
        if not path.is_dir():
            return super().read(path)
        return [answer for file in sorted(path.glob("*/output.json")) for answer in super(Mmmu, self).read(file)]

    def answer(self, record: Any, place: str) -> Answer:
        """Also a raw one, with its own options"""
        answer = super().answer(record, place)
        if isinstance(record, Mapping) and record.get("all_choices") and record.get("index2ans"):
            return Answer(answer.id, mmmu_choice(answer.text, record["all_choices"], record["index2ans"]) or "")
        return answer

    def told(self, example: Example, answer: str) -> str | None:
        options = example.about["options"]
        return answer if example.about["open"] else mmmu_choice(answer, list(options or LETTERS), options)

    def mark(self, example: Example, answer: str) -> bool:
        return mmmu_open(answer, example.truth) if example.about["open"] else super().mark(example, answer)


class MathVista(Choices):
    """Mathematics in pictures (Lu et al., 2024): `testmini.json`, `annot_testmini.json`, or Parquet as on the hub. An
    answer is the option's letter in brackets or its text, or the only number there is; officially a language model
    looks for it. Official answers: one object of records with `extraction` or `response`. Accuracies are also by
    task."""

    splits = ("testmini",)
    fields = (("question_id", "text"), ("pid", "extraction"), ("pid", "response"))
    max_tokens = 64

    def examples(self, data: Path, split: str) -> list[Example]:
        tables = sorted([*data.glob(f"data/{split}-*.parquet"), *data.glob(f"{split}-*.parquet")])
        if tables:
            records = {row["pid"]: row for row in read_parquet(tables)}
        else:
            names = (f"{split}.json", f"annot_{split}.json")
            records = read_json(found(data, *names))
        return [self._example(str(key), record, data) for key, record in records.items()]

    def _example(self, key: str, record: Mapping[str, Any], data: Path) -> Example:
        names = ("question", "image", "choices", "answer", "question_type", "answer_type", "precision")
        question, image, choices, right, kind, form, precision = fields(record, f"{data}, {key}", *names)
        shown = record.get("decoded_image")
        picture = Image(shown["bytes"] if shown else within(data, "data") / image)
        about = {"choices": choices if kind == "multi_choice" else [], "form": form, "precision": precision}
        task = record.get("metadata", {}).get("task")
        text = record.get("query") or (asked(question, lettered(choices)) if choices else f"{question}\n{BRIEFLY}")
        return Example(key, (picture, text), str(right), {**about, "kinds": [named(task)] if task else []})

    def told(self, example: Example, answer: str) -> str | None:
        about = example.about
        return mathvista_answer(answer, about["choices"], about["form"], about["precision"])


def _listed(text: str) -> list[str]:
    """A list as Python writes it"""
    try:
        return [str(one) for one in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError):
        raise InputError(f"options are a list as Python writes it, not {text[:80]!r}") from None
