"""Statements about three boxes that are true or false, in the manner of NLVR (Suhr et al., 2017), as samples.

What a statement says is told by counts of what lies in each box, and by what they must be; thoughts about it are these.
"""

from __future__ import annotations

from random import Random

from panmodal.data.nlvr import LOOK, QUESTION
from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.data.tokens import THINKING
from panmodal.playground.box_world import Boxes, described, description, is_tower, make_boxes, picture
from panmodal.playground.sayings import SCATTERED, TOWERS
from panmodal.playground.speaker import Speaker, Statement
from panmodal.playground.speech import conversation
from panmodal.playground.world import pick, random_source

SHOWN, TOLD = 1, 8  # statements about boxes that are shown, and that are told


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
    """What lies in the boxes, of which each has its picture; then statements, whether they are true, and the thoughts
    that tell it. Where they are not shown, the boxes are told."""
    rng = random_source("statements", split, seed)
    boxes = make_boxes(seed, split)
    said = statements(boxes, rng, SHOWN if shown else TOLD)
    asked = [_written(s.text, rng) for s in said]
    answers = [f"{s.thought(boxes)}".join(THINKING) + str(s.holds(boxes)).lower() for s in said]
    turns = list(zip(asked, answers, strict=True))
    if shown:
        return conversation([Image(picture(box)) for box in boxes], [(LOOK, description(boxes)), *turns])
    turns[0] = (f"{description(boxes)}. {asked[0]}", answers[0])
    return conversation([], turns)


def _written(text: str, rng: Random) -> str:
    """As in NLVR: some sentences lack their full stop, and some of those that begin with an A that."""
    text = text.removeprefix("a") if rng.random() < 0.25 else text
    return f"{text.strip()}{pick(rng, ('.', '.', ''))} {QUESTION}"
