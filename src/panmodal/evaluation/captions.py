"""Metrics of captions beside references, as COCO's evaluation has them (Chen et al., 2015): BLEU, ROUGE-L and CIDEr.

METEOR and SPICE, which need Java, are left out. Captions are sentences as they were written; their words are those of
`ptb`. A picture has one candidate and any number of references."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panmodal.evaluation.bootstrap import Means
from panmodal.evaluation.ptb import words

LONGEST = 4  # n-grams
SIGMA = 6.0  # of CIDEr-D's penalty, in bigrams
BETA = 1.2  # of ROUGE-L: how much more recall counts
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = Sequence[Sequence[str]]


class Grams(NamedTuple):
    """The n-grams of captions, for one n: which stand in which, and how often [K], sorted by caption, then n-gram;
    `kinds` is how many different ones there are."""

    caption: Ints
    gram: Ints
    times: Ints
    kinds: int


class Told(NamedTuple):
    """Captions of pictures, the candidates [P] first, then the references [R] of each picture in turn."""

    captions: list[list[str]]
    picture: Ints  # [P + R]: whose each is

    @property
    def pictures(self) -> int:
        return int(self.picture[-1]) + 1


def told(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Told:
    """One candidate, and one reference at least, for each picture."""
    owners = [i for i, several in enumerate(references) for _ in several]
    captions = words(candidates) + words([one for several in references for one in several])
    return Told(captions, np.array([*range(len(candidates)), *owners]))


def caption_units(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """For each picture what `caption_metrics` makes metrics of, from means over pictures."""
    captions = told(candidates, references)
    tables = list(grams(captions.captions))
    columns = bleu_counts(captions, tables) | {"rouge_l": rouge_l(captions), "cider": cider(captions, tables)}
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def caption_metrics(means: Means, pictures: int) -> Means:
    """BLEU-1 to BLEU-4 of all pictures together; of ROUGE-L and CIDEr the mean."""
    said, true = (means[name] * pictures for name in ("length", "reference_length"))
    ratio = (said + 1e-15) / (true + 1e-9)
    brevity = np.exp(np.minimum(0, 1 - 1 / ratio))
    metrics, product = {}, np.ones_like(said)
    for n in range(1, LONGEST + 1):
        right, all_ = (means[f"{name}_{n}"] * pictures for name in ("right", "grams"))
        product = product * (right + 1e-15) / (all_ + 1e-9)
        metrics[f"bleu_{n}"] = product ** (1 / n) * brevity
    return metrics | {"rouge_l": means["rouge_l"], "cider": means["cider"]}


def bleu_counts(captions: Told, tables: Sequence[Grams]) -> dict[str, Floats]:
    """What BLEU is made of (Papineni et al., 2002), each [P]: of each n the n-grams that there are, and those that a
    reference has as often; the words; and the words of the reference whose length is nearest."""
    pictures = captions.pictures
    lengths = np.array([len(caption) for caption in captions.captions])
    said = lengths[:pictures]
    apart = np.abs(lengths[pictures:] - said[captions.picture[pictures:]])
    order = np.lexsort((lengths[pictures:], apart, captions.picture[pictures:]))
    first = np.searchsorted(captions.picture[pictures:], np.arange(pictures))
    counts = {"length": said, "reference_length": lengths[pictures:][order][first]}
    for n, table in enumerate(tables, 1):
        own = np.searchsorted(table.caption, pictures)
        keys = captions.picture[table.caption] * table.kinds + table.gram
        kept, place = np.unique(keys[own:], return_inverse=True)
        most = np.zeros(len(kept) + 1, np.int64)
        np.maximum.at(most, place, table.times[own:])
        right = np.minimum(table.times[:own], most[_places(kept, keys[:own])])
        counts[f"right_{n}"] = np.bincount(table.caption[:own], right, pictures)
        counts[f"grams_{n}"] = np.maximum(said - n + 1, 0)
    return {name: np.asarray(column, np.float64) for name, column in counts.items()}


def cider(captions: Told, tables: Sequence[Grams], plain: bool = False) -> Floats:
    """CIDEr-D (Vedantam et al., 2015), which COCO's evaluation calls CIDEr -> [P]; or, `plain`, CIDEr, which neither
    clips counts nor minds lengths. n-grams weigh by how few pictures' references have them."""
    pictures, owner = captions.pictures, captions.picture
    bigrams = np.maximum(np.array([len(caption) for caption in captions.captions]) - 1, 0)
    longer = (bigrams - bigrams[owner])[pictures:].astype(np.float64)  # the candidate's lie at their pictures' numbers
    likeness = np.zeros(len(longer))
    for table in tables:
        own = np.searchsorted(table.caption, pictures)
        keys = owner[table.caption] * table.kinds + table.gram
        having = np.bincount(np.unique(keys[own:]) % table.kinds, minlength=table.kinds)
        weight = table.times * (np.log(pictures) - np.log(np.maximum(having, 1)))[table.gram]
        norm = np.sqrt(np.bincount(table.caption, weight**2, len(owner)))
        theirs = weight[own:]
        ours = np.append(weight[:own], 0.0)[_places(keys[:own], keys[own:])]
        met = (ours if plain else np.minimum(ours, theirs)) * theirs
        products = np.bincount(table.caption[own:] - pictures, met, len(longer))
        both = norm[owner[pictures:]] * norm[pictures:]
        likeness += products / np.where(both > 0, both, 1)
    if not plain:
        likeness *= np.exp(-(longer**2) / (2 * SIGMA**2))
    return 10 * np.bincount(owner[pictures:], likeness / LONGEST) / np.bincount(owner[pictures:])


def rouge_l(captions: Told) -> Floats:
    """ROUGE-L (Lin, 2004) -> [P]: from the longest common subsequence with any reference, the best precision and the
    best recall."""
    pictures = captions.pictures
    best = np.zeros((2, pictures))
    for said, owner in zip(captions.captions[pictures:], captions.picture[pictures:], strict=True):
        candidate = captions.captions[owner]
        common = _common(candidate, said)
        best[:, owner] = np.maximum(best[:, owner], (common / max(len(candidate), 1), common / max(len(said), 1)))
    precision, recall = best
    below = recall + BETA**2 * precision
    return np.divide((1 + BETA**2) * precision * recall, below, out=np.zeros(pictures), where=below > 0)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, by bits (Hyyrö, 2004)"""
    places: dict[str, int] = defaultdict(int)
    for i, word in enumerate(a):
        places[word] |= 1 << i
    full = (1 << len(a)) - 1
    rest = full
    for word in b:
        met = rest & places[word]
        rest = ((rest + met) | (rest - met)) & full
    return len(a) - rest.bit_count()


def grams(captions: Words) -> Iterator[Grams]:
    """The n-grams of captions, for each n up to `LONGEST`"""
    numbers: dict[str, int] = {}
    flat = np.array([numbers.setdefault(word, len(numbers)) for caption in captions for word in caption], np.int64)
    lengths = np.array([len(caption) for caption in captions])
    owner = np.repeat(np.arange(len(captions)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # words of the caption from each on
    start, gram = np.arange(len(flat)), flat
    for n in range(1, LONGEST + 1):
        if n > 1:
            whole = left[start] >= n
            start = start[whole]
            gram = np.unique(gram[whole] * len(numbers) + flat[start + n - 1], return_inverse=True)[1]
        kinds = int(gram.max(initial=0)) + 1
        keys, times = np.unique(owner[start] * kinds + gram, return_counts=True)
        yield Grams(keys // kinds, keys % kinds, times, kinds)


def _places(among: Ints, keys: Ints) -> Ints:
    """Where keys stand among sorted ones; past the end those that do not"""
    found = np.searchsorted(among, keys)
    there = np.append(among, -1)[np.minimum(found, len(among))] == keys
    return np.where(there, found, len(among))
