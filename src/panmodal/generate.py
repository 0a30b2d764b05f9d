"""Choosing tokens, one after another: greedy, sampling and beams, over a preallocated cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from panmodal.cache import Cache, Source
from panmodal.errors import InputError, suggest
from panmodal.language import LanguageModel

ENDED = -1  # what a row yields after its end


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. At temperature 0 the likeliest is taken; otherwise one is drawn, after
    `top_k`, `top_p` and `min_p` have narrowed the choice, as `seed` says. `beams` > 1 searches for
    the likeliest sequence, log probabilities divided by length to the power `length_penalty`.
    `contrast` sets what is seen in a picture apart from what is said anyway: see `contrasted`; `noise` is
    how many of 1,000 steps of diffusion the other picture has gone through.
    Generation ends after `max_tokens`, at an end token, or at one of the strings in `stop`."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    contrast: float = 0.0  # 0: none
    plausible: float = 0.1
    noise: int = 500
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "max_tokens": (1, 1_000_000),
            "temperature": (0.0, 100.0),
            "top_k": (0, 10_000_000),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "repetition_penalty": (0.01, 100.0),
            "beams": (1, 64),
            "contrast": (0.0, 100.0),
            "plausible": (0.0, 1.0),
            "noise": (1, 999),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; it must lie between {low} and {high}")
        if self.beams > 1 and self.temperature > 0:
            raise InputError("beams search for the likeliest sequence: use them with temperature 0")

    @classmethod
    def fitting(cls, options: Mapping[str, Any], prompt: int, context: int) -> Self:
        """Of options by name, with no more `max_tokens` than a prompt leaves of the context.
        Raises InputError for an unknown option, or a prompt that leaves none."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise InputError(f"unknown option {name!r}{suggest(name, known)}")
        stop = options.get("stop", ())
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        sampling, room = cls(**{**options, "stop": stop}), context - prompt
        if room < 1:
            raise InputError(f"the prompt has {prompt} tokens and fills the model's context of {context}")
        return replace(sampling, max_tokens=min(sampling.max_tokens, room))


@torch.inference_mode()
def generate(
    language: LanguageModel,
    ids: Tensor,
    x: Tensor,
    sampling: Sampling,
    ends: Sequence[int] = (),
    pad: Tensor | None = None,
    cache: Cache | None = None,
    source: Source | None = None,
) -> Iterator[Tensor]:
    """Goes on from a prompt, yielding one token a row, [B], until every row has ended.

    ids [B, S] is the whole prompt; x [B, T, D] are the vectors of its last T tokens, those before
    them being in `cache`; rows of unequal length are padded on the left, `pad` [B, S] True where a
    token is real. `source` is what cross-attention looks at. A row yields its end token and then ENDED.
    For a contrast x, `pad` and `source` have twice as many rows: after all others, the same with pictures in noise.
    """
    rows, prompt = ids.shape
    if sampling.contrast and len(x) != 2 * rows:
        raise InputError("contrast is for models that converse about pictures; leave it out")
    if cache is None:
        cache = language.make_cache(len(x), prompt + sampling.max_tokens)
    if pad is not None:
        pad = torch.cat([pad, pad.new_ones(len(pad), sampling.max_tokens)], dim=1)
    steps = (
        _Contrast(language, cache, pad, source, sampling) if sampling.contrast else _Steps(language, cache, pad, source)
    )
    logits = steps.logits(x)
    if sampling.beams > 1:
        yield from _beams(steps, logits, ids, sampling, ends)
        return
    chooser = _Chooser(sampling, ids)
    stops = torch.tensor(list(ends), dtype=torch.long, device=ids.device)
    ended = torch.zeros(rows, dtype=torch.bool, device=ids.device)
    kept = torch.arange(rows, device=ids.device)
    for step in range(sampling.max_tokens):
        chosen = chooser(logits)
        yield ids.new_full((rows,), ENDED).index_copy(0, kept, chosen.masked_fill(ended, ENDED))
        ended |= torch.isin(chosen, stops)
        over = int(ended.sum())
        if step + 1 == sampling.max_tokens or over == len(ended):
            return
        if 2 * over >= len(ended):  # they cost as much as those that go on
            going = (~ended).nonzero().flatten()
            kept, chosen, ended = kept[going], chosen[going], ended[going]
            steps.select(going)
            chooser.select(going)
        logits = steps.logits(language.embed.words(chosen[:, None]))


class _Steps:
    """The model as the choosers see it: vectors in, the next token's logits out."""

    def __init__(self, language: LanguageModel, cache: Cache, pad: Tensor | None, source: Source | None) -> None:
        self.language, self.cache, self.pad, self.source = language, cache, pad, source

    def logits(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> float32 logits [B, vocab]"""
        seen = self.cache.length + x.shape[1]
        pad = None if self.pad is None else self.pad[:, :seen]
        return self.language.logits(self.language.decode(x, pad, self.cache, self.source)[:, -1]).float()

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        if self.source is not None:
            self.source.select(rows)
        if self.pad is not None:
            self.pad = self.pad[rows]


class _Contrast(_Steps):
    """The same, every row beside that with its pictures in noise."""

    def __init__(
        self, language: LanguageModel, cache: Cache, pad: Tensor | None, source: Source | None, sampling: Sampling
    ) -> None:
        super().__init__(language, cache, pad, source)
        self.sampling, self.rows = sampling, 0

    def logits(self, x: Tensor) -> Tensor:
        """x [2 B, T, D] of a prompt, or [B, T, D] of what is said after it -> float32 logits [B, vocab]"""
        both = x if self.cache.length == 0 else x.repeat(2, 1, 1)
        self.rows = len(both) // 2
        seen, noisy = super().logits(both).chunk(2)
        return contrasted(seen, noisy, self.sampling)

    def select(self, rows: Tensor) -> None:
        super().select(torch.cat([rows, rows + self.rows]))


def contrasted(seen: Tensor, noisy: Tensor, s: Sampling) -> Tensor:
    """Logits of a picture, and of the same in noise, [B, vocab] -> [B, vocab]: the former by `contrast` further away
    from the latter, among tokens at least `plausible` times as likely, by the former, as the likeliest (visual
    contrastive decoding, Leng et al., 2024: alpha and beta)."""
    implausible = (seen - seen.amax(dim=-1, keepdim=True)).exp() < s.plausible
    return ((1 + s.contrast) * seen - s.contrast * noisy).masked_fill(implausible, -torch.inf)


class _Chooser:
    """Picks a token a row; each row has a random source of its own, so that what it draws does not
    depend on the rows beside it."""

    def __init__(self, sampling: Sampling, ids: Tensor) -> None:
        self.sampling, self.seen = sampling, ids
        self.sources = [torch.Generator(ids.device) for _ in ids]
        for source in self.sources:
            source.seed() if sampling.seed is None else source.manual_seed(sampling.seed)

    def __call__(self, logits: Tensor) -> Tensor:
        """logits [B, vocab] -> [B]"""
        s = self.sampling
        if s.repetition_penalty != 1.0:
            logits = penalise(logits, self.seen, s.repetition_penalty)
        if s.temperature == 0.0:
            chosen = logits.argmax(dim=-1)
        else:
            odds = narrow(logits / s.temperature, s).softmax(dim=-1)
            drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(odds, self.sources, strict=True)]
            chosen = torch.cat(drawn)
        if s.repetition_penalty != 1.0:
            self.seen = torch.cat([self.seen, chosen[:, None]], dim=1)
        return chosen

    def select(self, rows: Tensor) -> None:
        self.seen = self.seen[rows]
        self.sources = [self.sources[row] for row in rows.tolist()]


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that have occurred less likely (Keskar et al., 2019). [B, vocab], seen [B, S]"""
    score = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(score < 0, score * penalty, score / penalty))


def narrow(logits: Tensor, s: Sampling) -> Tensor:
    """Rules out all but the `top_k` likeliest tokens, those that make up `top_p` of the probability,
    and those at least `min_p` times as likely as the likeliest. [B, vocab]"""
    never = -torch.inf
    if s.top_k:
        least = logits.topk(min(s.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, never)
    if s.top_p < 1.0:
        ordered, order = logits.sort(descending=True)
        odds = ordered.softmax(dim=-1)
        beyond = odds.cumsum(dim=-1) - odds >= s.top_p  # what comes before it is enough already
        beyond[:, 0] = False
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), never)
    if s.min_p:
        odds = logits.softmax(dim=-1)
        logits = logits.masked_fill(odds < s.min_p * odds.amax(dim=-1, keepdim=True), never)
    return logits


def _beams(steps: _Steps, logits: Tensor, ids: Tensor, s: Sampling, ends: Sequence[int]) -> Iterator[Tensor]:
    """Beam search over every row, then the best sequences, token by token.

    Each step keeps the `beams` best continuations that go on; those that end become candidates,
    and a row is done when none that goes on can beat its `beams` candidates.
    """
    rows, beams, vocab = len(ids), s.beams, logits.shape[-1]
    steps.select(torch.arange(rows, device=ids.device).repeat_interleave(beams))
    logits = logits.repeat_interleave(beams, dim=0)
    seen = ids.repeat_interleave(beams, dim=0)
    scores = logits.new_full((rows, beams), -1e9)
    scores[:, 0] = 0.0  # at first all beams of a row are alike: only one counts
    said: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(rows)]
    found: list[list[tuple[float, list[int]]]] = [[] for _ in range(rows)]
    done = [False] * rows
    for length in range(1, s.max_tokens + 1):
        if s.repetition_penalty != 1.0:
            logits = penalise(logits.log_softmax(-1), seen, s.repetition_penalty)
        steps_odds = logits.log_softmax(-1) if s.repetition_penalty == 1.0 else logits
        totals = (scores[:, :, None] + steps_odds.view(rows, beams, vocab)).flatten(1)
        best, where = totals.topk(min(2 * beams, totals.shape[1]))
        origin: list[int] = []
        chosen: list[int] = []
        for row in range(rows):
            going: list[tuple[float, int, int]] = []
            for rank, (score, place) in enumerate(zip(best[row].tolist(), where[row].tolist(), strict=True)):
                beam, token = divmod(place, vocab)
                if token in ends:
                    if rank < beams and not done[row]:
                        found[row].append((score / length**s.length_penalty, [*said[row][beam], token]))
                elif len(going) < beams:
                    going.append((score, beam, token))
            found[row] = sorted(found[row], key=lambda f: -f[0])[:beams]
            if length == s.max_tokens and not done[row]:
                found[row] += [(sc / length**s.length_penalty, [*said[row][b], t]) for sc, b, t in going]
                found[row].sort(key=lambda f: -f[0])
            hope = going[0][0] / length**s.length_penalty
            done[row] |= len(found[row]) >= beams and found[row][beams - 1][0] >= hope
            said[row] = [[*said[row][b], t] for _, b, t in going]
            scores[row] = scores.new_tensor([sc for sc, _, _ in going])
            origin += [row * beams + b for _, b, _ in going]
            chosen += [t for _, _, t in going]
        if all(done) or length == s.max_tokens:
            break
        steps.select(torch.tensor(origin, device=ids.device))
        new = torch.tensor(chosen, device=ids.device)[:, None]
        seen = torch.cat([seen[torch.tensor(origin, device=ids.device)], new], dim=1)
        logits = steps.logits(steps.language.embed.words(new))
    answers = [f[0][1] for f in found]
    for i in range(max(map(len, answers))):
        yield torch.tensor([a[i] if i < len(a) else ENDED for a in answers], device=ids.device)
