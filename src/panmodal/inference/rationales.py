"""Thoughts that a model had before right answers, to be tuned on (STaR, Zelikman et al., 2022)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import IO, Any

from panmodal.data.readers import Source
from panmodal.data.sample import Message, Sample
from panmodal.data.tokens import THINKING
from panmodal.errors import InputError
from panmodal.evaluation.metrics import exact_match
from panmodal.families import Conversational
from panmodal.prompting.reasoning import ask_first

ROWS = 32  # answered at a time
THOUGHTS = re.compile("(.*{}.*{})(.*)".format(*map(re.escape, THINKING)), re.DOTALL)


def rationales(
    model: Conversational,
    source: Source,
    out: IO[str],
    count: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
    first: str = "",
    **options: Any,
) -> tuple[int, int]:
    """Answers each sample's last turn, and writes those that the model thought about and got right, with its thoughts,
    as JSON lines; returns how many, and of how many. With `first`, this is asked about the last turn's pictures before
    (`ask_first`), and the answer kept, too. `options` are those of `reply`."""
    total = count or source.size
    if total is None:
        raise InputError("the data has no end; say how many samples")
    kept, total = 0, min(total, source.size or total)
    for start in range(0, total, ROWS):
        samples = [source.sample(i) for i in range(start, min(start + ROWS, total))]
        asked = [list(s.messages[:-1]) for s in samples]
        asked = ask_first(model, asked, first, ROWS, **options) if first else asked
        replies = model.reply_all(asked, ROWS, thoughts=True, **options)
        for sample, said, reply in zip(samples, asked, replies, strict=True):
            if _right(sample, reply):
                out.write(json.dumps(Sample((*said, reply), sample.about).to_json()) + "\n")
                kept += 1
        told(min(start + ROWS, total), total)
    return kept, total


def _right(sample: Sample, reply: Message) -> bool:
    """Whether a reply's answer, after thoughts, is the sample's"""
    thoughts, answer = _parted(reply.text)
    return bool(thoughts) and exact_match(answer, _parted(sample.messages[-1].text)[1])


def _parted(text: str) -> tuple[str, str]:
    """Thoughts, if there are any, and the answer"""
    found = THOUGHTS.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)
