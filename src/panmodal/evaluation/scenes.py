"""The playground's questions about scenes, in the form of a benchmark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image as Pil

from panmodal.data.sample import Said
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.metrics import exact_match
from panmodal.evaluation.task import Example, Made, Task
from panmodal.playground import KINDS, Question, make_scene, questions, render
from panmodal.playground.world import Scene


@dataclass(frozen=True)
class SceneTask(Task):
    """A task of the playground: it makes its `count` examples itself. `pictures` other than the question's "own" show
    what an answer owes to them: "swapped" for another scene's, or among the examples, or "none". `shots` is the number
    of examples in a prompt, for tasks that have any, and `retriever` says which (`Examples`)."""

    count: int = 0
    pictures: str = "own"
    shots: int | None = None
    retriever: str = "random"

    splits = ("test", "held-out", "train")
    takes_shots = False

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        """The mean of the marks, of all and of each kind, where examples have kinds"""
        marks = self.marks(examples, answers)
        scored = tally([{self.metric: mark} for mark in marks])
        found: dict[str, list[float]] = defaultdict(list)
        for example, mark in zip(examples, marks, strict=True):
            if kind := example.about.get("kind"):
                found[kind].append(mark)
        by_kind = {kind: fmean(some) for kind, some in sorted(found.items())}
        return Score(scored.metrics | ({"by_kind": by_kind} if found else {}), scored.intervals, None)


def picture(scene: Scene) -> Made:
    """A scene's picture, rendered when it is looked at"""
    return Made(lambda: Pil.fromarray(render(scene)))


@dataclass(frozen=True)
class SceneQuestions(SceneTask):
    """Exact match on questions about scenes, every one of `question_kinds` equally often.

    `question_only` is what one reaches who always gives a kind's most common answer.
    """

    question_kinds: tuple[str, ...] = tuple(KINDS)

    takes_shots = True
    max_tokens = 64

    def examples(self, data: Path, split: str) -> list[Example]:
        return [self._example(scene, question) for scene, question in self.drawn(split)]

    def drawn(self, split: str) -> Iterator[tuple[Scene, Question]]:
        """Scenes of a split, and what is asked about each"""
        seed = 0
        for i in range(self.count):
            kind = self.question_kinds[i % len(self.question_kinds)]
            found: list[Question] = []
            while not found:
                scene = make_scene(seed, split)
                found = questions(scene, 1, kinds=(kind,))
                seed += 1
            yield scene, found[0]

    def _example(self, scene: Scene, question: Question) -> Example:
        about = {"kind": question.kind, "shown": shown(scene, self.pictures)}
        return Example(str(scene.seed), asked(scene, self.pictures, question.text), question.answer, about)

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        truths: dict[str, Counter[str]] = defaultdict(Counter)
        for example in examples:
            truths[example.about["kind"]][example.truth] += 1
        common = sum(max(counts.values()) for counts in truths.values()) / len(examples)
        scored = super().score(examples, answers)
        return replace(scored, metrics={**scored.metrics, "question_only": common})

    def mark(self, example: Example, answer: str) -> bool:
        return exact_match(answer, example.truth)


def shown(scene: Scene, pictures: str) -> Scene | None:
    """What is seen when a scene is asked about; `pictures` are as in `SceneTask`"""
    if pictures == "swapped":
        return make_scene(scene.seed + 1, scene.split)
    return None if pictures == "none" else scene


def before(scene: Scene, pictures: str) -> tuple[Said, ...]:
    """The picture that is seen before a scene is asked about, if any is"""
    seen = shown(scene, pictures)
    return (picture(seen),) if seen else ()


def asked(scene: Scene, pictures: str, text: str) -> tuple[Said, ...]:
    return (*before(scene, pictures), text)
