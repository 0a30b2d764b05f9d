"""Tasks for models that match and caption."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from panmodal.data.sample import Image
from panmodal.evaluation.metrics import share
from panmodal.families import BlipHybrid
from panmodal.playground import caption, make_scene, objects_named, one_changed, render
from panmodal.playground.world import Scene, random_source

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

TOP = 16  # of the contrast, to be ranked again
CAPTIONED = 32  # pictures at a time
FEW = 3  # objects at most in a scene to be captioned


def match(model: BlipHybrid, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Of every picture two texts to judge: its detailed caption, and the same with one attribute of one
    object changed."""
    right: dict[str, list[bool]] = defaultdict(list)
    scenes = -(-asked.count // 2)
    for seed in range(scenes):
        scene = make_scene(seed, asked.split)
        attribute, changed = one_changed(scene, random_source("near miss", asked.split, seed))
        true, false = model.match(Image(render(scene)), [caption(scene), caption(changed)])
        right["fits"].append(true > 0.5)
        right[f"another_{attribute}"].append(false <= 0.5)
        asked.progress(2 * (seed + 1), 2 * scenes)
    every = [hit for hits in right.values() for hit in hits]
    kinds = {kind: share(hits) for kind, hits in sorted(right.items())}
    return len(every), {"accuracy": share(every), "by_kind": kinds}


def captions(model: BlipHybrid, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Scenes of up to three objects; a caption is right if it names every object with its colour and shape, and
    no other."""
    right: dict[str, list[bool]] = defaultdict(list)
    seed, done = 0, 0
    while done < asked.count:
        scenes: list[Scene] = []
        while len(scenes) < min(CAPTIONED, asked.count - done):
            scene = make_scene(seed, asked.split)
            scenes += [scene] if len(scene.objects) <= FEW else []
            seed += 1
        said = model.caption_all([Image(render(scene)) for scene in scenes])
        for scene, text in zip(scenes, said, strict=True):
            there = Counter((thing.colour, thing.shape) for thing in scene.objects)
            right[f"objects_{len(scene.objects)}"].append(objects_named(text) == there)
        done += len(scenes)
        asked.progress(done, asked.count)
    kinds = {kind: share(hits) for kind, hits in sorted(right.items())}
    return done, {"accuracy": sum(map(sum, right.values())) / done, "by_kind": kinds}


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
