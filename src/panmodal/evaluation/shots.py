"""Tasks with examples in the prompt (M-ICL), chosen for each question from a store, or made for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panmodal.data.sample import Conversation, Message, Sample, assistant
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score, tally
from panmodal.evaluation.metrics import last_words
from panmodal.evaluation.scenes import SceneTask, picture
from panmodal.evaluation.task import Example, groups
from panmodal.families import Conversational, load
from panmodal.playground import HELD_OUT, SEEN
from panmodal.playground.new_words import Lesson, domain_sample
from panmodal.playground.world import random_source, shuffled
from panmodal.prompting.examples import LIKENESS, Examples, prompt

ROWS = 16  # prompts of many pictures that are answered at a time
STORE = 480  # samples of the playground to choose examples from
STORED = 10_000  # of a data set, at most
EMBEDDER = "tiny/clip"  # sees how much alike they are


def store_of(samples: Sequence[Sample], retriever: str, embedder: str = EMBEDDER) -> Examples:
    """Samples to choose examples from, likened, if they are, by the embedder"""
    return Examples(samples, retriever, load(embedder) if retriever in LIKENESS else None)


@dataclass(frozen=True)
class Shown:
    """A model that is shown solved examples before each question, for who asks for nothing but answers. Raises
    InputError if there is no room for all of them."""

    model: Any  # `Conversational`
    store: Examples
    shots: int

    def reply_all(self, conversations: Sequence[Conversation], rows: int, max_tokens: int) -> list[Message]:
        prompts = []
        for number, said in enumerate(conversations):
            chosen = self.store.choose(Sample(tuple(said)), self.shots, number)
            conversation, there = prompt(self.model, chosen, said, max_tokens)
            if there < self.shots:
                what = "has room for" if there < len(chosen) else "can be shown"
                raise InputError(f"{self.model.name} {what} {there} of {self.shots} examples; lower --shots")
            prompts.append(conversation)
        replies: list[Message] = self.model.reply_all(prompts, rows, max_tokens=max_tokens)
        return replies


def solved(examples: Sequence[Example]) -> list[Sample]:
    """Examples with their answers, of very many some, evenly from the first to the last"""
    count = min(len(examples), STORED)
    some = [examples[i * len(examples) // count] for i in range(count)]
    return [Sample((*one.messages, assistant(_solution(one.truth)))) for one in some]


def _solution(truth: Any) -> str:
    """What is right as an answer: of several the most common, of a box its numbers"""
    if isinstance(truth, bool):
        return "Yes" if truth else "No"
    if isinstance(truth, str):
        return truth
    if all(isinstance(one, str) for one in truth):
        return str(Counter(truth).most_common(1)[0][0])
    return str([round(number, 2) for number in truth])


@dataclass(frozen=True)
class TwoWords(SceneTask):
    """An answer ends with two words, for a colour and a shape; both must be right."""

    rows = ROWS

    def mark(self, example: Example, answer: Any) -> float:
        return _two_words(example, answer)["accuracy"]


def _two_words(example: Example, answer: str) -> dict[str, float]:
    colour, shape = (a == b for a, b in zip(last_words(answer, 2), example.truth.split(), strict=True))
    return {"accuracy": colour and shape, "colour": colour, "shape": shape}


@dataclass(frozen=True)
class NewWords(TwoWords):
    """What a picture is called, by words that the examples in the prompt alone explain. There are 4 `shots` unless
    said.

    `text_only` is what one reaches who reads the examples' sentences and guesses among the pairs of their words that
    they do not have. Swapped pictures are those of the examples, shuffled among them.
    """

    def examples(self, data: Path, split: str) -> list[Example]:
        return [self._example(Lesson(seed, split), seed) for seed in range(self.count)]

    def _example(self, lesson: Lesson, seed: int) -> Example:
        known, query = lesson.shots(4 if self.shots is None else self.shots), lesson.query
        scenes = [one.scene for one in known]
        if self.pictures == "swapped":
            scenes = shuffled(random_source("swapped", seed), scenes)
        shown = [picture(scene) if self.pictures != "none" else "" for scene in (*scenes, query.scene)]
        told = [Example("", (seen,), one.text) for seen, one in zip(shown, known, strict=False)]
        pairs = {one.words for one in known}
        unsaid = {(a, b) for a, _ in pairs for _, b in pairs} - pairs
        guess = 1 / len(unsaid) if query.words in unsaid else 0.0
        return Example(str(seed), (shown[-1],), " ".join(query.words), {"known": told, "guess": guess})

    def prompts(self, model: Conversational, examples: Sequence[Example]) -> list[Conversation]:
        return [
            [*(m for known in one.about["known"] for m in (*known.messages, assistant(known.truth))), *one.messages]
            for one in examples
        ]

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        return tally([{**_two_words(one, answers[one.id]), "text_only": one.about["guess"]} for one in examples])


@dataclass(frozen=True)
class DomainMix(TwoWords):
    """What a picture is called, where each background has made-up words of its own for colours and shapes. `shots`, 2
    unless said, come from a store of pictures on all backgrounds, in whose words training's pairs of colour and shape
    are named. An answer is a text, and how many of them there was room for; the mean of that is `shown`."""

    def examples(self, data: Path, split: str) -> list[Example]:
        pairs = sorted(HELD_OUT) if split == "held-out" else SEEN
        samples = ((number, domain_sample(number, pairs)) for number in range(self.count))
        return [
            Example(str(number), one.messages[0].parts, " ".join(one.about["words"]), {"sample": one})
            for number, one in samples
        ]

    def ask(self, model: Conversational, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        store = store_of([domain_sample(10**6 + i, SEEN) for i in range(STORE)], self.retriever)
        wanted = 2 if self.shots is None else self.shots
        for some in groups(examples, self.rows):
            prompts = [
                prompt(model, store.choose(one.about["sample"], wanted, int(one.id)), one.messages, self.max_tokens)
                for one in some
            ]
            replies = model.reply_all([said for said, _ in prompts], self.rows, max_tokens=self.max_tokens)
            yield from ({"text": r.text, "shown": n} for r, (_, n) in zip(replies, prompts, strict=True))

    def mark(self, example: Example, answer: Any) -> float:
        return super().mark(example, answer["text"])

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        given = [(one, answers[one.id]) for one in examples]
        return tally([{**_two_words(one, answer["text"]), "shown": answer["shown"]} for one, answer in given])
