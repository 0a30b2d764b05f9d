"""The playground's questions about scenes, in the form of a benchmark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image as Pil

from panmodal.data.sample import Said
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.metrics import exact_match
from panmodal.evaluation.task import Example, Made, Task
from panmodal.playground import SPLITS, Question, make_scene, questions, render
from panmodal.playground.world import Scene


@dataclass(frozen=True)
class SceneQuestions(Task):
    """Exact match on questions about scenes, every one of `question_kinds` equally often. `pictures` are as in `Asked`.

    `question_only` is what one reaches who always gives a kind's most common answer.
    """

    question_kinds: tuple[str, ...]
    count: int = 0
    pictures: str = "own"

    splits = SPLITS
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

    def shown(self, scene: Scene) -> Scene | None:
        """What is seen when a scene is asked about"""
        return shown(scene, self.pictures)

    def _example(self, scene: Scene, question: Question) -> Example:
        parts = asked(scene, self.pictures, question.text)
        return Example(str(scene.seed), parts, question.answer, {"kind": question.kind})

    def score(self, examples: Sequence[Example], answers: Mapping[str, str]) -> Score:
        right: dict[str, list[float]] = defaultdict(list)
        truths: dict[str, Counter[str]] = defaultdict(Counter)
        for example, mark in zip(examples, self.marks(examples, answers), strict=True):
            right[example.about["kind"]].append(mark)
            truths[example.about["kind"]][example.truth] += 1
        scored = tally([{"accuracy": mark} for marks in right.values() for mark in marks])
        by_kind = {kind: fmean(right[kind]) for kind in self.question_kinds if kind in right}
        common = sum(max(counts.values()) for counts in truths.values()) / len(examples)
        return Score({**scored.metrics, "by_kind": by_kind, "question_only": common}, scored.intervals, None)

    def mark(self, example: Example, answer: str) -> bool:
        return exact_match(answer, example.truth)


def shown(scene: Scene, pictures: str) -> Scene | None:
    """What is seen when a scene is asked about; `pictures` are as in `Asked`"""
    return {"own": scene, "swapped": make_scene(scene.seed + 1, scene.split), "none": None}[pictures]


def asked(scene: Scene, pictures: str, text: str) -> tuple[Said, ...]:
    """A question about a scene, after its picture, if it is seen"""
    seen = shown(scene, pictures)
    return (Made(lambda: Pil.fromarray(render(seen))), text) if seen else (text,)
