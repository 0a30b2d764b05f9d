"""Tasks that find out what a model names that is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from panmodal.data.sample import Image
from panmodal.evaluation.bootstrap import Score
from panmodal.evaluation.metrics import chair_scores, says_yes, share
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import Example
from panmodal.evaluation.yes_no import Pope
from panmodal.playground import caption, is_description, make_scene, objects_named
from panmodal.playground.hallucinations import POLLS, polls


@dataclass(frozen=True)
class ScenePope(SceneTask):
    """Whether a thing is in the picture, half of the time it is (POPE, Li et al., 2023): by what is asked about when it
    is not, `random`, `popular` and `adversarial`, and the means of the three."""

    max_tokens = 8
    rows = 64

    def examples(self, data: Path, split: str) -> list[Example]:
        seen: dict[int, Image] = {}
        examples = []
        for number, (scene, poll, pair, there) in enumerate(islice(polls(split), self.count)):
            parts = (seen.setdefault(scene.seed, picture(scene)), f"Is there a {' '.join(pair)} in the picture?")
            examples.append(Example(str(number), parts, there, {"kind": poll}))
        return examples

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        scored = Pope().score(examples, answers)
        means = {name: value for name, value in scored.metrics.items() if not name.startswith(POLLS)}
        by_kind = {poll: {name: scored.metrics[f"{poll}_{name}"] for name in means} for poll in POLLS}
        return Score({**means, "by_kind": by_kind}, scored.intervals, None)

    def mark(self, example: Example, answer: str) -> bool:
        return says_yes(answer) is example.truth


@dataclass(frozen=True)
class SceneChair(SceneTask):
    """Things named in descriptions, by colour and shape, that are not there (CHAIR, Rohrbach et al., 2018); and
    `well_formed`, the share of descriptions that are sentences as the playground makes them, true or not. An answer
    is faithful if it names nothing that is not there."""

    max_tokens = 160
    rows = 64
    metric = "faithful"

    def examples(self, data: Path, split: str) -> list[Example]:
        scenes = [make_scene(seed, split) for seed in range(self.count)]
        return [
            Example(str(scene.seed), (picture(scene), "Describe the picture."), caption(scene, "brief"))
            for scene in scenes
        ]

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        told = [answers[one.id].strip() for one in examples]
        scores = chair_scores(
            [objects_named(text) for text in told], [set(objects_named(one.truth)) for one in examples]
        )
        return Score({**scores, "well_formed": share([is_description(text) for text in told])}, {}, None)

    def mark(self, example: Example, answer: str) -> bool:
        return not objects_named(answer).keys() - objects_named(example.truth).keys()
