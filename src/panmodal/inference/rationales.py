"""Thoughts that a model had before right answers, to be tuned on (STaR, Zelikman et al., 2022)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from panmodal.data.readers import Source
from panmodal.data.sample import Message, Sample
from panmodal.data.tokens import THINKING
from panmodal.errors import InputError
from panmodal.evaluation.metrics import exact_match
from panmodal.families import Conversational

ROWS = 32  # answered at a time
THOUGHTS = re.compile("(.*{}.*{})(.*)".format(*map(re.escape, THINKING)), re.DOTALL)


def rationales(
    model: Conversational,
    source: Source,
    out: IO[str],
    count: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> tuple[int, int]:
    """Answers each sample's last turn, and writes those that the model thought about and got right, with its thoughts,
    as JSON lines; returns how many, and of how many. `options` are those of `reply`."""
    total = count or source.size
    if total is None:
        raise InputError("the data has no end; say how many samples")
    kept, total = 0, min(total, source.size or total)
    for start in range(0, total, ROWS):
        samples = [source.sample(i) for i in range(start, min(start + ROWS, total))]
        replies = model.reply_all([s.messages[:-1] for s in samples], ROWS, thoughts=True, **options)
        for sample in _right(samples, replies):
            out.write(json.dumps(sample.to_json()) + "\n")
            kept += 1
        told(min(start + ROWS, total), total)
    return kept, total


def _right(samples: list[Sample], replies: list[Message]) -> Iterator[Sample]:
    """Those whose answer, after thoughts, is the sample's"""
    for sample, reply in zip(samples, replies, strict=True):
        thoughts, answer = _parted(reply.text)
        if thoughts and exact_match(answer, _parted(sample.messages[-1].text)[1]):
            yield Sample((*sample.messages[:-1], reply), sample.about)


def _parted(text: str) -> tuple[str, str]:
    """Thoughts, if there are any, and the answer"""
    found = THOUGHTS.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)
