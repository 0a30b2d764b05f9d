"""Statements about three boxes that are true or false, in the manner of NLVR (Suhr et al., 2017), as samples.

What a statement says is a count for each box (things that fit, or whether the box does) and a rule for the three
counts; so that thoughts about it are what lies in the boxes, and the counts.
"""

from __future__ import annotations

from random import Random

from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.data.tokens import THINKING
from panmodal.playground.box_world import Boxes, described, description, is_tower, make_boxes, picture
from panmodal.playground.sayings import SCATTERED, TOWERS
from panmodal.playground.speaker import Speaker, Statement
from panmodal.playground.speech import conversation
from panmodal.playground.world import pick, random_source

QUESTION = "True or false?"
SHOWN, TOLD = 2, 12  # statements about boxes that are shown, and that are told


def statements(boxes: Boxes, rng: Random, count: int) -> list[Statement]:
    """About the boxes, true or false as a coin falls."""
    speaker, kinds = Speaker(rng), TOWERS if is_tower(boxes[0]) else SCATTERED
    made: list[Statement] = []
    while len(made) < count:
        kind, wanted = speaker.pick(*kinds), speaker.pick(True, False)
        tries = (kind(speaker) for _ in range(12))
        made += next(([s] for s in tries if s.holds(boxes) == wanted), [])
    return made


def box_sample(seed: int, split: str = "train") -> Sample:
    """A picture of one box, and what lies in it."""
    box = pick(random_source("box", split, seed), make_boxes(seed, split))
    return Sample((user(Image(picture(box)), "What is in the box?"), assistant(described(box))))


def statement_sample(seed: int, split: str = "train", shown: bool = True) -> Sample:
    """Statements, whether they are true, and the thoughts that tell it: at first what lies in the boxes, of which each
    has its picture; where they are not shown, the boxes are told."""
    rng = random_source("statements", split, seed)
    boxes = make_boxes(seed, split)
    said = statements(boxes, rng, SHOWN if shown else TOLD)
    asked = [f"{s.text}{pick(rng, ('.', '.', ''))} {QUESTION}" for s in said]
    told, opening, closing = description(boxes), *THINKING
    counted = [" ".join(map(str, s.counts(boxes))) for s in said]
    if shown:
        counted[0] = f"{told}. {counted[0]}"
    else:
        asked[0] = f"{told}. {asked[0]}" if pick(rng, (True, False)) else f"{asked[0]} {told}"
    answers = [f"{opening}{n}{closing}{str(s.holds(boxes)).lower()}" for n, s in zip(counted, said, strict=True)]
    pictures: list[Image | str] = [Image(picture(box)) for box in boxes] if shown else []
    return conversation(pictures, list(zip(asked, answers, strict=True)))
