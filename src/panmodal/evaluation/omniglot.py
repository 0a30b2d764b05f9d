"""Omniglot's one-shot classification (Lake et al., 2015): characters, each known from one drawing by another hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.layouts import found
from panmodal.evaluation.task import ROWS, Example, Task
from panmodal.families import Contrastive, Conversational
from panmodal.prompting.examples import prompt

QUESTION = "Which character is this?"
RUNS = tuple(f"run{number:02}" for number in range(1, 21))


class Omniglot(Task):
    """Twenty runs of twenty characters: `run01/class_labels.txt`, whose lines are a test picture and the training
    picture of its character, in the folder of the data or in `all_runs/` there. An answer is the number of a class.

    A model that converses has the run's training pictures as examples in its prompt; one that embeds takes the
    picture that is the most alike. `error` is what the authors report.
    """

    splits = ("all", *RUNS)
    takes_shots = False
    kinds = (Conversational, Contrastive)

    def examples(self, data: Path, split: str) -> list[Example]:
        runs = RUNS if split == "all" else (split,)
        return [example for run in runs for example in self._run(found(data, f"{run}/class_labels.txt"), run)]

    def _run(self, path: Path, run: str) -> list[Example]:
        pairs = [line.split() for line in path.read_text().splitlines() if line.strip()]
        for pair in pairs:
            if len(pair) != 2 or not _number(pair[1]):
                raise InputError(f"{path}: a line is a test picture and its class, not {' '.join(pair)!r}")
        files = {_number(file): Image(path.parent.parent / file) for file in sorted(known for _, known in pairs)}
        return [
            Example(
                f"{run}/{Path(test).stem}",
                (Image(path.parent.parent / test), QUESTION),
                _number(known),
                {"classes": files},
            )
            for test, known in pairs
        ]

    def ask(self, model: Any, examples: Sequence[Example]) -> Iterator[str]:
        for start in range(0, len(examples), ROWS):
            some = examples[start : start + ROWS]
            if isinstance(model, Contrastive):
                yield from map(partial(self._likest, model), some)
            else:
                yield from self._told(model, some)

    def _likest(self, model: Contrastive, example: Example) -> str:
        classes: dict[int, Image] = example.about["classes"]
        wanted, *known = model.embed([example.messages[0].images[0], *classes.values()])
        likeness = [float(vector @ wanted) for vector in known]
        return str([*classes][likeness.index(max(likeness))])

    def _told(self, model: Conversational, examples: Sequence[Example]) -> list[str]:
        prompts = []
        for example in examples:
            known = [
                Sample((user(picture, QUESTION), assistant(str(number))))
                for number, picture in example.about["classes"].items()
            ]
            said, shown = prompt(model, known, example.messages, self.max_tokens)
            if shown < len(known) or not model.interleaved:
                raise InputError(
                    f"{model.name} does not read {len(known)} pictures, each with its words, in one prompt"
                )
            prompts.append(said)
        return [reply.text for reply in model.reply_all(prompts, ROWS, max_tokens=self.max_tokens)]

    def mark(self, example: Example, answer: str) -> float:
        return float(_number(answer) == example.truth)

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        units = []
        for example in examples:
            right = self.mark(example, answers[example.id])
            units.append({"accuracy": right, "error": 1 - right, "unparsed": not _number(answers[example.id])})
        return tally(units)


def _number(text: str) -> int:
    """The last number in a text; 0 if there is none"""
    found = re.findall(r"\d+", text)
    return int(found[-1]) if found else 0
