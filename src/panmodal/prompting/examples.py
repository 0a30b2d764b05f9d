"""In-context examples (M-ICL): which samples stand before a question, in which order, and how many of them fit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Resampling
from torch import Tensor
from torch.nn.functional import normalize

from panmodal.data.sample import Conversation, Image, Message, Sample, Text
from panmodal.errors import InputError, suggest
from panmodal.families import Chat, Conversational, Family

LIKENESS = ("image", "text", "mixed")
RETRIEVERS = ("random", "balanced", *LIKENESS)
EXACT = 50_000  # samples up to which all are compared; of more, an index finds almost the nearest
CANDIDATES = 4  # times as many as are wanted are looked at, for some may be copies, or too much alike
THUMB, SAME = 8, 12  # pixels of a picture's side, and levels by which those of a copy may differ


class Examples:
    """A store of samples, from which to choose those that are shown before a query.

    `retriever` says how: `random`; `balanced`, as many of each answer as of the others; or by likeness to the query, as
    `embedder` sees it (RICES, Yang et al., 2022): of the pictures (`image`), of what is asked (`text`), or of both
    (`mixed`, the mean of the two cosines). The likest stands last, next to the query. With `diversity` above 0, that
    share of an example's worth is how little it is like those chosen before (maximal marginal relevance, Carbonell and
    Goldstein, 1998). The query itself, and what has its picture, or almost, is never among them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        retriever: str = "random",
        embedder: Family[Any] | None = None,
        diversity: float = 0.0,
    ) -> None:
        if retriever not in RETRIEVERS:
            raise InputError(f"unknown retriever {retriever!r}{suggest(retriever, RETRIEVERS)}")
        if retriever in LIKENESS and (embedder is None or not embedder.does("embed")):
            raise InputError(f"the retriever {retriever!r} needs a model that embeds, such as tiny/clip")
        if not 0 <= diversity < 1:
            raise InputError(f"diversity is {diversity}; it must be 0 or more, and less than 1")
        self.samples, self.retriever, self.embedder, self.diversity = samples, retriever, embedder, diversity
        self._thumbs: dict[int, list[NDArray[np.int16]]] = {}

    def choose(self, query: Sample, count: int, seed: int = 0) -> list[Sample]:
        """Up to `count` samples in the order in which they are to be shown; `seed` decides what chance does."""
        if self.retriever in LIKENESS:
            chosen = self._likest(query, count)
        else:
            rng, own = Random(seed), _thumbs(query)
            order = self._balanced(rng) if self.retriever == "balanced" else rng.sample(self._all, len(self._all))
            chosen = []
            for i in order:
                if len(chosen) == count:
                    break
                if not self._copies(i, query, own):
                    chosen.append(i)
        return [self.samples[i] for i in chosen]

    @cached_property
    def _all(self) -> list[int]:
        return list(range(len(self.samples)))

    def _balanced(self, rng: Random) -> list[int]:
        """All samples, in rounds of one of every answer"""
        turns: Counter[str] = Counter()
        rounds: dict[int, list[int]] = defaultdict(list)
        for i in rng.sample(self._all, len(self._all)):
            answer = self.samples[i].messages[-1].text
            rounds[turns[answer]].append(i)
            turns[answer] += 1
        return [i for some in rounds.values() for i in some]

    def _likest(self, query: Sample, count: int) -> list[int]:
        vectors, index = self._index
        wanted, own = self._vectors([query])[0], _thumbs(query)
        found = index.search(wanted.numpy(), CANDIDATES * count + 8, exact=len(vectors) <= EXACT)
        left = [i for i in found.keys.tolist() if not self._copies(i, query, own)]
        chosen: list[int] = []
        while left and len(chosen) < count:
            worth = vectors[left] @ wanted * (1 - self.diversity)
            if chosen and self.diversity:
                worth = worth - self.diversity * (vectors[left] @ vectors[chosen].T).amax(1)
            chosen.append(left.pop(int(worth.argmax())))
        return chosen[::-1]

    @cached_property
    def _index(self) -> tuple[Tensor, Any]:
        try:
            from usearch.index import Index
        except ImportError:
            raise InputError("finding examples by likeness needs usearch; pip install 'panmodal[search]'") from None
        vectors = self._vectors(self.samples)
        index = Index(ndim=vectors.shape[1], metric="ip")
        index.add(np.arange(len(vectors)), vectors.numpy())
        return vectors, index

    def _vectors(self, samples: Sequence[Sample]) -> Tensor:
        """[samples, D], such that products are the cosines that are asked for"""
        embed = self.embedder.embed  # type: ignore[union-attr]
        parts = []
        if self.retriever != "text":
            counts = [len(_asked(sample).images) for sample in samples]
            if 0 in counts:
                raise InputError(f"the retriever {self.retriever!r} compares pictures, and a sample has none")
            seen = embed([_fresh(image) for sample in samples for image in _asked(sample).images])
            parts.append(normalize(torch.stack([some.mean(0) for some in seen.split(counts)]), dim=-1))
        if self.retriever != "image":
            parts.append(embed([_asked(sample).text or " " for sample in samples], truncate=True))
        return torch.cat(parts, 1).div(len(parts) ** 0.5)

    def _copies(self, number: int, query: Sample, own: list[NDArray[np.int16]]) -> bool:
        """Whether a sample is the query, or has a picture that is almost one of the query's"""
        sample = self.samples[number]
        if not own:
            return _asked(sample).text.split() == _asked(query).text.split()
        if number not in self._thumbs:
            self._thumbs[number] = _thumbs(sample)
        return any(np.abs(a - b).max() <= SAME for a in own for b in self._thumbs[number])


def prompt(
    model: Conversational, examples: Sequence[Sample], query: Sequence[Message], max_tokens: int
) -> tuple[Conversation, int]:
    """The examples and then the query, as one conversation, and how many of them are in it: whole ones, from the last,
    as many as leave room in the context for `max_tokens`, where it is known. A model that reads one picture at a time
    (not `interleaved`) gets the texts of examples alone."""
    turns = [list(sample.messages) if model.interleaved else _texts(sample.messages) for sample in examples]
    if isinstance(model, Chat):
        room = model.language.context - max_tokens
        while turns and len(model.processor.expand(_joined(turns, query), True).ids) > room:
            turns.pop(0)
    return _joined(turns, query), len(turns)


def _joined(turns: Sequence[Sequence[Message]], query: Sequence[Message]) -> Conversation:
    return [message for messages in (*turns, query) for message in messages]


def _texts(messages: Sequence[Message]) -> list[Message]:
    return [Message(m.role, tuple(part for part in m.parts if isinstance(part, Text))) for m in messages]


def _asked(sample: Sample) -> Message:
    """The turn that a sample's last answer is to"""
    return next(message for message in reversed(sample.messages) if message.role == "user")


def _thumbs(sample: Sample) -> list[NDArray[np.int16]]:
    small = (_fresh(image).pixels.resize((THUMB, THUMB), Resampling.BOX) for image in sample.images)
    return [np.asarray(picture, np.int16) for picture in small]


def _fresh(image: Image) -> Image:
    """The same, of which the pixels are not kept"""
    fresh = copy(image)
    vars(fresh).pop("pixels", None)
    return fresh
