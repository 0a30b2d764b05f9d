"""Tasks that find out what a model names that is not there."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from panmodal.data.sample import Said
from panmodal.evaluation.bootstrap import Means, Score, tally
from panmodal.evaluation.metrics import chair_counts, chair_rates, chair_scores, says_yes, share, yes_no_rates
from panmodal.evaluation.scenes import SceneTask, before
from panmodal.evaluation.scenes import asked as asked_of
from panmodal.evaluation.task import Example, Task
from panmodal.evaluation.yes_no import Pope
from panmodal.playground import caption, is_description, make_scene, objects_named
from panmodal.playground.hallucinations import POLLS, PROBES, polls, probes
from panmodal.playground.words import is_there

DESCRIBE = "Describe the picture."
CHAIR = "chair"


@dataclass(frozen=True)
class ScenePope(SceneTask):
    """Whether a thing is in the picture, half of the time it is (POPE, Li et al., 2023): by what is asked about when it
    is not, `random`, `popular` and `adversarial`, and the means of the three."""

    max_tokens = 8
    rows = 64

    def examples(self, data: Path, split: str) -> list[Example]:
        seen: dict[int, tuple[Said, ...]] = {}
        examples = []
        for number, (scene, poll, pair, there) in enumerate(islice(polls(split), self.count)):
            parts = (*seen.setdefault(scene.seed, before(scene, self.pictures)), is_there(*pair))
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
            Example(str(scene.seed), asked_of(scene, self.pictures, DESCRIBE), caption(scene, "brief"))
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


class Hallucination(Task):
    """What a model says of pictures that is not so: POPE's three kinds of questions, descriptions (CHAIR), and probes,
    in one. `about` of an example has its `kind` and its `picture`; all about one picture is drawn together.

    Of each kind of questions the share answered rightly, and with yes; of POPE's also precision, recall and F1 of yes,
    and `pope_f1`, the mean of the kinds. `chair_i`, `chair_s` and `chair_recall` are those of `chair_scores`. A
    description counts as right if it names nothing that is not there."""

    takes_shots = False
    max_tokens = 160

    @abstractmethod
    def named(self, text: str) -> Counter[Any]:
        """What a description names, and how often."""

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        pictures: dict[str, Counter[str]] = defaultdict(Counter)
        for one in examples:
            kind, counts = one.about["kind"], self._counts(one, answers[one.id])
            pictures[one.about["picture"]].update({f"{kind} {i}": count for i, count in enumerate((1, *counts))})
        return tally(list(pictures.values()), self._metrics)

    def mark(self, example: Example, answer: str) -> bool:
        counts = self._counts(example, answer)
        return not counts[2] if example.about["kind"] == CHAIR else bool(counts[0])

    def _counts(self, example: Example, answer: str) -> tuple[int, ...]:
        if example.about["kind"] == CHAIR:
            return chair_counts(self.named(answer), example.truth)
        said, there = says_yes(answer), example.truth
        return said == there, said and there, said, there

    def _metrics(self, means: Means) -> Means:
        metrics: Means = {}
        for kind in dict.fromkeys(name.partition(" ")[0] for name in means):
            asked, *counts = (means[f"{kind} {i}"] for i in range(6 if kind == CHAIR else 5))
            rates = chair_rates if kind == CHAIR else yes_no_rates
            told = rates(*(count / asked for count in counts))
            kept = ("accuracy", "yes_share") if kind in PROBES else tuple(told)
            metrics |= {name if name.startswith(kind) else f"{kind}_{name}": told[name] for name in kept}
        if pope := [rate for name, rate in metrics.items() if name.startswith("pope_") and name.endswith("_f1")]:
            metrics["pope_f1"] = np.mean(pope, axis=0)
        return metrics


@dataclass(frozen=True)
class SceneHallucinations(Hallucination, SceneTask):
    """The playground's: as many of each of POPE's kinds, of each of the probes, and of descriptions."""

    def examples(self, data: Path, split: str) -> list[Example]:
        kinds = [*POLLS, *PROBES, CHAIR]
        return [
            one
            for i, kind in enumerate(kinds)
            for one in self._some(kind, split, len(range(i, self.count, len(kinds))))
        ]

    def _some(self, kind: str, split: str, count: int) -> list[Example]:
        drawn: Any
        if kind in POLLS:
            drawn = ((scene, is_there(*pair), so) for scene, poll, pair, so in polls(split) if poll == kind)
        elif kind in PROBES:
            drawn = probes(kind, split)
        else:
            scenes = (make_scene(seed, split) for seed in numbers())
            drawn = ((s, DESCRIBE, [f"{thing.colour} {thing.shape}" for thing in s.objects]) for s in scenes)
        name = f"pope_{kind}" if kind in POLLS else kind
        return [
            Example(f"{name}/{i}", asked_of(scene, self.pictures, text), so, {"kind": name, "picture": str(scene.seed)})
            for i, (scene, text, so) in enumerate(islice(drawn, count))
        ]

    def named(self, text: str) -> Counter[Any]:
        return Counter({" ".join(thing): n for thing, n in objects_named(text).items()})
