"""Things found by others in a shared space: their ranks, and recall."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from panmodal.evaluation.bootstrap import Means, Score, tally
from panmodal.evaluation.captioning import karpathy
from panmodal.evaluation.hybrid import rerank
from panmodal.evaluation.layouts import found
from panmodal.evaluation.metrics import ranks
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import ROWS, Example, Task, groups
from panmodal.families import BlipHybrid, Contrastive
from panmodal.playground import HELD_OUT, SEEN, caption, make_scene, one_changed
from panmodal.playground.world import PAIRS, random_source, single_object_scene

FIRST = (1, 5, 10)
AGAIN = "reranked_"
GALLERY = 100  # of the playground
CAPTIONS = 5  # of a picture


class Ranked(Task):
    """An answer is, for each way from one kind of thing to another, by its name, the rank of what is found first and
    fits, from 1; or the ranks of what several look for. `recall_at_1` is the mean of the ways'."""

    metric = "recall_at_1"

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        units = []
        for one in examples:
            unit: dict[str, float] = {}
            for way, told in answers[one.id].items():
                places = _listed(told)
                unit[way] = len(places)
                unit |= {f"{way}_recall_at_{k}": sum(place <= k for place in places) for k in FIRST}
            units.append(unit)
        return tally(units, _recalls)

    def mark(self, example: Example, answer: Mapping[str, Any]) -> float:
        ways = [_listed(told) for way, told in answer.items() if not way.startswith(AGAIN)]
        return fmean(fmean(place == 1 for place in places) for places in ways)


def _listed(told: int | list[int]) -> list[int]:
    return told if isinstance(told, list) else [told]


def _recalls(means: Means) -> Means:
    """From how many look for something each way, and how many find it"""
    ways = [name for name in means if "_recall_at_" not in name]
    rates = {f"{way}_recall_at_{k}": means[f"{way}_recall_at_{k}"] / means[way] for way in ways for k in FIRST}
    for again in ("", AGAIN):
        own = [rates[f"{way}_recall_at_1"] for way in ways if way.startswith(AGAIN) is bool(again)]
        if own:
            rates[f"{again}recall_at_1"] = np.mean(own, axis=0)
    return rates


@dataclass(frozen=True)
class SceneRetrieval(Ranked, SceneTask):
    """Pictures and detailed captions, each found by the other among a hundred: by the contrast alone, and, by a
    model that matches, `reranked`. With `pairs`, every picture has a twin that differs in one attribute."""

    pairs: bool = False

    rows = GALLERY

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = []
        for start in range(0, self.count, GALLERY):
            scenes = [make_scene(seed, split) for seed in range(start, start + GALLERY // (1 + self.pairs))]
            if self.pairs:
                scenes += [one_changed(scene, random_source("twin", split, scene.seed))[1] for scene in scenes]
            for number, scene in enumerate(scenes, start):
                examples.append(Example(str(number), (picture(scene), caption(scene)), number))
        return examples

    def ask(self, model: Contrastive | BlipHybrid, examples: Sequence[Example]) -> Iterator[dict[str, int]]:
        for some in groups(examples, self.rows):
            said = [one.messages[0] for one in some]
            images, captions = [m.images[0] for m in said], [m.text for m in said]
            likeness = model.embed(images) @ model.embed(captions).T
            fits = torch.tensor([[a == b for a in captions] for b in captions])
            ways = {"image_to_text": likeness, "text_to_image": likeness.T}
            if isinstance(model, BlipHybrid) and model.does("match"):
                both = rerank(model, images, captions, likeness)
                ways |= {f"{AGAIN}{way}": ranked for way, ranked in zip(ways, both, strict=True)}
            places = {way: ranks(found, fits).tolist() for way, found in ways.items()}
            yield from ({way: row[i] for way, row in places.items()} for i in range(len(some)))


@dataclass(frozen=True)
class ZeroShot(SceneTask):
    """One object, named among all 48 pairs of colour and shape; the object's pair is one that training
    showed, or, in the held-out split, one that it never did."""

    rows = 64

    def examples(self, data: Path, split: str) -> list[Example]:
        shown = sorted(HELD_OUT) if split == "held-out" else SEEN
        pairs = [(seed, *shown[seed % len(shown)]) for seed in range(self.count)]
        return [Example(str(s), (picture(single_object_scene(s, c, h)),), f"{c} {h}") for s, c, h in pairs]

    def ask(self, model: Contrastive, examples: Sequence[Example]) -> Iterator[str]:
        names = [f"{colour} {shape}" for colour, shape in PAIRS]
        labels = model.embed_labels(names)
        for some in groups(examples, self.rows):
            likeness = model.embed([one.messages[0].images[0] for one in some]) @ labels.T
            yield from (names[i] for i in likeness.argmax(dim=1).tolist())

    def mark(self, example: Example, answer: str) -> bool:
        return bool(answer == example.truth)


class KarpathyRetrieval(Ranked):
    """Pictures and their captions, five of each, found by each other in a whole split of Karpathy and Fei-Fei's (2015),
    by the contrast alone: `dataset_NAME.json`, 5,000 pictures of COCO or 1,000 of Flickr30k to be tested by."""

    splits = ("test", "val", "train")
    kinds = (Contrastive, BlipHybrid)
    rows = sys.maxsize  # a rank is among all

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = karpathy(found(data, f"dataset_{self.name}.json"), split, data, self.key)
        return [Example(one.id, one.parts[:1], one.truth[:CAPTIONS]) for one in examples]

    def ask(self, model: Contrastive | BlipHybrid, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        images = torch.cat(
            [model.embed([one.messages[0].images[0] for one in some]) for some in groups(examples, ROWS)]
        )
        texts = torch.cat([model.embed(list(one.truth)) for one in examples])
        owners = torch.tensor([i for i, one in enumerate(examples) for _ in one.truth])
        for i, seen in enumerate(images):
            own = owners == i
            there = ranks((seen @ texts.T)[None], own[None])
            back = ranks(texts[own] @ images.T, (torch.arange(len(images)) == i).expand(int(own.sum()), -1))
            yield {"image_to_text": int(there), "text_to_image": back.tolist()}
