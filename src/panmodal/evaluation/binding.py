"""How well sounds, pictures and texts are bound together, in the playground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from panmodal.data.media import Audio
from panmodal.evaluation.metrics import ranks
from panmodal.evaluation.retrieval import Ranked
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import Example, groups
from panmodal.families import Binding
from panmodal.playground import HELD_OUT, SEEN, Scene, caption, make_scene, scene_of, sound
from panmodal.playground.sound import RATE
from panmodal.playground.world import PAIRS, random_source, shuffled

GALLERY = 50


@dataclass(frozen=True)
class SceneSounds(Ranked, SceneTask):
    """Sounds and pictures (`to` is "image"), or brief captions ("text"), of scenes, each found by the other among
    fifty. No sound was ever learned with a text."""

    to: str = "image"

    rows = GALLERY

    def examples(self, data: Path, split: str) -> list[Example]:
        scenes = [make_scene(seed, split) for seed in range(self.count)]
        return [
            Example(str(one.seed), (picture(one), caption(one, "brief")), one.seed, {"scene": one}) for one in scenes
        ]

    def ask(self, model: Binding, examples: Sequence[Example]) -> Iterator[dict[str, int]]:
        for some in groups(examples, self.rows):
            sounds = [_heard(one.about["scene"]) for one in some]
            said = [one.messages[0] for one in some]
            texts = [message.text for message in said]
            others = [message.images[0] for message in said] if self.to == "image" else texts
            likeness = model.embed(sounds) @ model.embed(others).T
            told = [sound.source.tobytes() for sound in sounds] if self.to == "image" else texts
            fits = torch.tensor([[a == b for a in told] for b in told])  # of two scenes that sound alike both are right
            there, back = ranks(likeness, fits).tolist(), ranks(likeness.T, fits).tolist()
            names = f"audio_to_{self.to}", f"{self.to}_to_audio"
            yield from (dict(zip(names, places, strict=True)) for places in zip(there, back, strict=True))


@dataclass(frozen=True)
class SceneSums(Ranked, SceneTask):
    """The sound of one thing and the picture of another, their vectors added, find among fifty pictures of two
    things each that of both."""

    rows = GALLERY

    def examples(self, data: Path, split: str) -> list[Example]:
        examples = []
        for seed in range(self.count):
            pairs = _pairs(split, seed)
            examples.append(Example(str(seed), (picture(scene_of(seed, pairs)),), seed, {"pairs": pairs}))
        return examples

    def ask(self, model: Binding, examples: Sequence[Example]) -> Iterator[dict[str, int]]:
        for some in groups(examples, self.rows):
            seeds, both = [one.truth for one in some], [one.about["pairs"] for one in some]
            gallery = model.embed([one.messages[0].images[0] for one in some])
            heard = model.embed([_heard(scene_of(s, pairs[:1])) for s, pairs in zip(seeds, both, strict=True)])
            seen = model.embed([picture(scene_of(s, pairs[1:])) for s, pairs in zip(seeds, both, strict=True)])
            fits = torch.tensor([[set(a) == set(b) for a in both] for b in both])
            yield from ({"sum_to_image": place} for place in ranks((heard + seen) @ gallery.T, fits).tolist())


def _heard(scene: Scene) -> Audio:
    return Audio(sound(scene), RATE)


def _pairs(split: str, seed: int) -> list[tuple[str, str]]:
    """Two different pairs of colour and shape; in the held-out split one that training never showed, and another"""
    rng = random_source("two", split, seed)
    if split != "held-out":
        return shuffled(rng, SEEN)[:2]
    first = shuffled(rng, sorted(HELD_OUT))[0]
    return [first, *(pair for pair in shuffled(rng, PAIRS) if pair != first)][:2]
