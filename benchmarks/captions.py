"""CIDEr of 5,000 pictures with five references each, from sentences to the figure: our side, and pycocoevalcap's, whose
tokenizer is Java's. Run as `python -m benchmarks.captions ours` or `peer`."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable

import numpy as np

PICTURES, REFERENCES = 5000, 5
WORDS, VOCABULARY = 10.5, 12_000  # a caption's on average, and different ones, as COCO's
Side = Callable[[list[str], list[list[str]]], float]


def sentences() -> tuple[list[str], list[list[str]]]:
    """Candidates and references of words as common and as rare as a language's; those of a picture share some."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(VOCABULARY)]
    common = 1 / np.arange(1, VOCABULARY + 1)
    every = random.choice(VOCABULARY, (PICTURES, REFERENCES + 1, 24), p=common / common.sum())
    every[:, :, ::3] = every[:, :1, ::3]
    lengths = np.clip(random.poisson(WORDS, (PICTURES, REFERENCES + 1)), 5, 24)

    def sentence(picture: int, number: int) -> str:
        told = [words[i] for i in every[picture, number, : lengths[picture, number]]]
        return f"A {' '.join(told[:4])}, {' '.join(told[4:])}."

    references = [[sentence(picture, number + 1) for number in range(REFERENCES)] for picture in range(PICTURES)]
    return [sentence(picture, 0) for picture in range(PICTURES)], references


def ours() -> Side:
    from panmodal.evaluation.captions import cider, grams, told

    def score(candidates: list[str], references: list[list[str]]) -> float:
        captions = told(candidates, references)
        return float(cider(captions, list(grams(captions.captions))).mean())

    return score


def peer() -> Side:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def score(candidates: list[str], references: list[list[str]]) -> float:
        tokenizer = PTBTokenizer()
        said = tokenizer.tokenize({i: [{"caption": one}] for i, one in enumerate(candidates)})
        true = tokenizer.tokenize({i: [{"caption": one} for one in several] for i, several in enumerate(references)})
        return float(Cider().compute_score(true, said)[0])

    return score


def spent() -> float:
    """Seconds of the processor, Java's too, so that others on the machine count for little"""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, USED))


SIDES = {"ours": ours, "peer": peer}
USED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

if __name__ == "__main__":
    score, given = SIDES[sys.argv[1]](), sentences()
    began = spent()
    found = score(*given)
    seconds = spent() - began
    memory = max(resource.getrusage(which).ru_maxrss for which in USED) / 1024
    print(json.dumps({"s": seconds, "cider": found, "peak_mb": memory}))
