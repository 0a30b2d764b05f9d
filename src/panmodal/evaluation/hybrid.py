"""Tasks for models that match and caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from torch import Tensor

from panmodal.data.sample import Image
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import Example, groups
from panmodal.families import BlipHybrid
from panmodal.playground import caption, make_scene, objects_named, one_changed
from panmodal.playground.world import random_source

TOP = 16  # of the contrast, to be ranked again
FEW = 3  # objects at most in a scene to be captioned


@dataclass(frozen=True)
class Match(SceneTask):
    """Of every picture two texts to judge: its detailed caption, and the same with one attribute of one object changed.
    An answer is how likely the text fits."""

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = []
        for seed in range(-(-self.count // 2)):
            scene = make_scene(seed, split)
            attribute, changed = one_changed(scene, random_source("near miss", split, seed))
            for kind, said in (("fits", scene), (f"another_{attribute}", changed)):
                truth, about = said is scene, {"kind": kind}
                examples.append(Example(f"{seed}/{kind}", (picture(scene), caption(said)), truth, about))
        return examples

    def ask(self, model: BlipHybrid, examples: Sequence[Example]) -> Iterator[float]:
        for pair in groups(examples, 2):
            yield from model.match(pair[0].messages[0].images[0], [one.messages[0].text for one in pair])

    def mark(self, example: Example, answer: float) -> bool:
        return (answer > 0.5) is example.truth


@dataclass(frozen=True)
class SceneCaptions(SceneTask):
    """Scenes of up to three objects; a caption is right if it names every object with its colour and shape, and
    no other."""

    def examples(self, data: Path, split: str) -> list[Example]:
        scenes = (make_scene(seed, split) for seed in count())
        few = islice((scene for scene in scenes if len(scene.objects) <= FEW), self.count)
        return [
            Example(str(s.seed), (picture(s),), caption(s, "brief"), {"kind": f"objects_{len(s.objects)}"}) for s in few
        ]

    def ask(self, model: BlipHybrid, examples: Sequence[Example]) -> Iterator[str]:
        for some in groups(examples, self.rows):
            yield from model.caption_all([one.messages[0].images[0] for one in some])

    def mark(self, example: Example, answer: str) -> bool:
        return objects_named(answer) == objects_named(example.truth)


def rerank(model: BlipHybrid, images: Sequence[Image], texts: Sequence[str], likeness: Tensor) -> tuple[Tensor, Tensor]:
    """How well texts fit pictures, and pictures texts, where the `TOP` that the contrast finds likest are judged
    by matching, each picture encoded once, and the others come last. likeness [N, M] -> [N, M], [M, N]"""
    best, best_back = (_largest(rows) for rows in (likeness, likeness.T))
    judged = best | best_back.T
    fits = torch.zeros_like(likeness)
    for image, row, where in zip(images, fits, judged, strict=True):
        row[where] = torch.tensor(model.match(image, [texts[i] for i in where.nonzero()[:, 0].tolist()]))
    ranked = likeness + fits  # as the authors do; the likeness orders what matching finds equal
    return ranked.masked_fill(~best, -torch.inf), ranked.T.masked_fill(~best_back, -torch.inf)


def _largest(rows: Tensor) -> Tensor:
    """Where the `TOP` largest of each row are"""
    best = rows.topk(min(TOP, rows.shape[1]), dim=1).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter(1, best, True)
