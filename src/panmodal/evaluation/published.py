"""Tasks whose data sets a user has, in the layout in which they were published."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panmodal.data.nlvr import LOOK
from panmodal.data.nlvr import nlvr as open_split
from panmodal.evaluation.metrics import share
from panmodal.families import Conversational
from panmodal.prompting.reasoning import ask_first

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

ROWS = 32  # answered at a time
VERDICTS = {"true": True, "yes": True, "false": False, "no": False}


def nlvr(model: Conversational, asked: Asked) -> tuple[int, dict[str, Any]]:
    """Whether sentences are true of pictures (NLVR, Suhr et al., 2017), of which the model first says what is in them.
    `accuracy` counts each of a sentence's six
    pictures, as the official evaluation does; `consistency` the sentences with all their pictures right. An answer
    that is neither true nor false is wrong, and counted in `unparsed`. `majority` is what one answer to all reaches."""
    source = open_split(Path(asked.data), asked.split)
    count = min(asked.count or source.size, source.size)
    right: dict[str, list[bool]] = defaultdict(list)
    unparsed, truths = 0, list[bool]()
    for start in range(0, count, ROWS):
        samples = [source.sample(i) for i in range(start, min(start + ROWS, count))]
        asked_of = ask_first(model, [[sample.messages[0]] for sample in samples], LOOK, ROWS, max_tokens=160)
        replies = model.reply_all(asked_of, ROWS, max_tokens=96)
        for sample, reply in zip(samples, replies, strict=True):
            said = verdict(reply.text)
            truths.append(sample.messages[1].text == "true")
            unparsed += said is None
            right[sample.about["identifier"]].append(said is truths[-1])
        asked.progress(len(truths), count)
    return count, {
        "accuracy": share([hit for hits in right.values() for hit in hits]),
        "consistency": share([all(hits) for hits in right.values()]),
        "majority": max(share(truths), 1 - share(truths)),
        "unparsed": unparsed,
    }


def verdict(answer: str) -> bool | None:
    """True or false, as an answer says by its first word of either kind; None if it has none."""
    found = re.search(rf"\b({'|'.join(VERDICTS)})\b", answer.lower())
    return VERDICTS[found[1]] if found else None
