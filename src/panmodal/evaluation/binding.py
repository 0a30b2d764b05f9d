"""How well sounds, pictures and texts are bound together, in the playground."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from panmodal.data.media import Audio, Medium
from panmodal.data.sample import Image
from panmodal.evaluation.metrics import recall_at, share
from panmodal.families import Binding
from panmodal.playground import HELD_OUT, SEEN, Scene, caption, make_scene, render, scene_of, sound
from panmodal.playground.sound import RATE
from panmodal.playground.world import PAIRS, random_source, shuffled

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

GALLERY = 50
Outcome = tuple[int, dict[str, Any]]


def audio_image(model: Binding, asked: Asked) -> Outcome:
    """Sounds and pictures of scenes, each found by the other among fifty."""
    return _found(model, asked, "image", lambda scene: Image(render(scene)), lambda scene: sound(scene).tobytes())


def audio_text(model: Binding, asked: Asked) -> Outcome:
    """Sounds and brief captions, each found by the other among fifty, though no sound was ever learned with a text."""
    return _found(model, asked, "text", lambda scene: caption(scene, "brief"), lambda scene: caption(scene, "brief"))


def audio_plus_image(model: Binding, asked: Asked) -> Outcome:
    """The sound of one thing and the picture of another, their vectors added, find among fifty pictures of two
    things each that of both."""
    hits: list[bool] = []
    for start, size in _galleries(asked):
        both = [_pairs(asked.split, seed) for seed in range(start, start + size)]
        gallery = model.embed([Image(render(scene_of(start + i, pairs))) for i, pairs in enumerate(both)])
        heard = model.embed([_heard(scene_of(start + i, pairs[:1])) for i, pairs in enumerate(both)])
        seen = model.embed([Image(render(scene_of(start + i, pairs[1:]))) for i, pairs in enumerate(both)])
        fits = torch.tensor([[set(a) == set(b) for a in both] for b in both])
        hits += recall_at(1, (heard + seen) @ gallery.T, fits).tolist()
        asked.progress(len(hits), asked.count)
    return len(hits), {"recall_at_1": share(hits)}


def _found(
    model: Binding, asked: Asked, kind: str, other: Callable[[Scene], Medium | str], told: Callable[[Scene], object]
) -> Outcome:
    """Sounds and another kind each found by the other; where `told` is the same of two scenes, both are right."""
    there: list[bool] = []
    back: list[bool] = []
    for start, size in _galleries(asked):
        scenes = [make_scene(seed, asked.split) for seed in range(start, start + size)]
        likeness: Tensor = model.embed([_heard(s) for s in scenes]) @ model.embed([other(s) for s in scenes]).T
        fits = _same([told(s) for s in scenes])
        there += recall_at(1, likeness, fits).tolist()
        back += recall_at(1, likeness.T, fits).tolist()
        asked.progress(len(there), asked.count)
    shares = share(there), share(back)
    named = {f"audio_to_{kind}_recall_at_1": shares[0], f"{kind}_to_audio_recall_at_1": shares[1]}
    return len(there), {**named, "recall_at_1": sum(shares) / 2}


def _galleries(asked: Asked) -> Iterator[tuple[int, int]]:
    """Where each gallery of scenes begins, and how many are in it"""
    for start in range(0, asked.count, GALLERY):
        yield start, min(GALLERY, asked.count - start)


def _same(told: Sequence[object]) -> Tensor:
    return torch.tensor([[a == b for a in told] for b in told])


def _heard(scene: Scene) -> Audio:
    return Audio(sound(scene), RATE)


def _pairs(split: str, seed: int) -> list[tuple[str, str]]:
    """Two different pairs of colour and shape; in the held-out split one that training never showed, and another"""
    rng = random_source("two", split, seed)
    if split != "held-out":
        return shuffled(rng, SEEN)[:2]
    first = shuffled(rng, sorted(HELD_OUT))[0]
    return [first, *(pair for pair in shuffled(rng, PAIRS) if pair != first)][:2]
