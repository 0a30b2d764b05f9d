"""Tasks that find out what a model names that is not there."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from panmodal.data.sample import Image, user
from panmodal.evaluation.metrics import chair_scores, says_yes, share, yes_no_scores
from panmodal.families import Conversational
from panmodal.playground import is_description, make_scene, objects_named, render
from panmodal.playground.hallucinations import polls

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

ROWS = 64  # answered at a time


def pope(model: Conversational, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Whether a thing is in the picture, half of the time it is (POPE, Li et al., 2023): by what is asked about when it
    is not, `random`, `popular` and `adversarial`, and the means of the three."""
    said: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    done, questions = 0, islice(polls(asked.split), asked.count)
    while some := list(islice(questions, ROWS)):
        pictures = {scene.seed: Image(render(scene)) for scene, *_ in some}
        texts = [f"Is there a {' '.join(pair)} in the picture?" for _, _, pair, _ in some]
        prompts = [[user(pictures[s.seed], text)] for (s, *_), text in zip(some, texts, strict=True)]
        replies = model.reply_all(prompts, rows=ROWS, max_tokens=8)
        for (_, poll, _, there), reply in zip(some, replies, strict=True):
            said[poll].append((says_yes(reply.text), there))
        done += len(some)
        asked.progress(done, asked.count)
    kinds = {poll: yes_no_scores(*zip(*answers, strict=True)) for poll, answers in said.items()}
    means = {name: fmean(scores[name] for scores in kinds.values()) for name in next(iter(kinds.values()))}
    return done, {**means, "by_kind": kinds}


def chair(model: Conversational, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Things named in descriptions, by colour and shape, that are not there (CHAIR, Rohrbach et al., 2018); and
    `well_formed`, the share of descriptions that are sentences as the playground makes them, true or not."""
    told: list[str] = []
    there: list[set[tuple[str, str]]] = []
    for start in range(0, asked.count, ROWS):
        scenes = [make_scene(seed, asked.split) for seed in range(start, min(start + ROWS, asked.count))]
        prompts = [[user(Image(render(scene)), "Describe the picture.")] for scene in scenes]
        told += [reply.text.strip() for reply in model.reply_all(prompts, rows=ROWS, max_tokens=160)]
        there += [{(thing.colour, thing.shape) for thing in scene.objects} for scene in scenes]
        asked.progress(len(told), asked.count)
    scores = chair_scores([objects_named(text) for text in told], there)
    return len(told), {**scores, "well_formed": share([is_description(text) for text in told])}
