"""Tasks whose examples are chosen for each question from a store (M-ICL)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from panmodal.data.sample import Sample
from panmodal.evaluation.metrics import last_words, share
from panmodal.families import Conversational, load
from panmodal.playground import HELD_OUT, SEEN
from panmodal.playground.new_words import domain_sample
from panmodal.prompting.examples import LIKENESS, Examples, prompt

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

ROWS = 16  # prompts of many pictures that are answered at a time
STORE = 480  # samples to choose examples from
EMBEDDER = "tiny/clip"  # sees how much alike they are
MAX_TOKENS = 16


def store_of(samples: Sequence[Sample], retriever: str) -> Examples:
    """Samples to choose examples from, likened, if they are, by tiny/clip"""
    return Examples(samples, retriever, load(EMBEDDER) if retriever in LIKENESS else None)


def domain_mix(model: Conversational, asked: Asked) -> tuple[int, dict[str, Any]]:
    """What a picture is called, where each background has made-up words of its own for colours and shapes; both must be
    right. `shots`, 2 unless said, come from a store of pictures on all backgrounds, in whose words training's pairs of
    colour and shape are named. `shown` is how many of them there was room for."""
    store = store_of([domain_sample(10**6 + i, SEEN) for i in range(STORE)], asked.retriever)
    pairs, wanted = (sorted(HELD_OUT) if asked.split == "held-out" else SEEN), 2 if asked.shots is None else asked.shots
    right: dict[str, list[bool]] = defaultdict(list)
    counts: list[int] = []
    for start in range(0, asked.count, ROWS):
        numbers = range(start, min(start + ROWS, asked.count))
        queries = [domain_sample(number, pairs) for number in numbers]
        prompts = [
            prompt(model, store.choose(query, wanted, number), query.messages[:1], MAX_TOKENS)
            for number, query in zip(numbers, queries, strict=True)
        ]
        replies = model.reply_all([said for said, _ in prompts], ROWS, max_tokens=MAX_TOKENS)
        for query, reply in zip(queries, replies, strict=True):
            said = [a == b for a, b in zip(last_words(reply.text, 2), query.about["words"], strict=True)]
            right["accuracy"].append(all(said))
            right["colour"].append(said[0])
            right["shape"].append(said[1])
        counts += [shown for _, shown in prompts]
        asked.progress(len(counts), asked.count)
    return len(counts), {**{name: share(hits) for name, hits in right.items()}, "shown": fmean(counts)}
