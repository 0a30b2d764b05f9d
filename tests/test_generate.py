from __future__ import annotations

import pytest
import torch

from panmodal.embeddings import Rope, TokenEmbedding
from panmodal.errors import InputError
from panmodal.generate import ENDED, Sampling, generate, narrow, penalise
from panmodal.language import LanguageModel, splice
from panmodal.transformer import TransformerConfig, initialise


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    config = TransformerConfig(dim=32, depth=2, heads=4, causal=True, rope=Rope())
    made = LanguageModel(TokenEmbedding(50, 32), config, context=64)
    initialise(made, std=0.4)
    return made.eval()


def run(model, ids, pad=None, ends=(), **options):
    x = model.embed.words(ids)
    return torch.stack(list(generate(model, ids, x, Sampling(**options), ends, pad)), 1)


def prompt(rows=1, length=6):
    return torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(3))


def test_greedy_is_the_likeliest_token_each_time(model):
    ids = prompt()
    out = run(model, ids, max_tokens=8)
    for i in range(8):
        with torch.no_grad():
            logits = model(torch.cat([ids, out[:, :i]], 1))
        assert logits[0, -1].argmax() == out[0, i]


def test_rows_of_unequal_length_answer_as_they_would_alone(model):
    short, long = prompt(1, 4), prompt(1, 9)
    ids = torch.cat([torch.cat([torch.zeros(1, 5, dtype=torch.long), short], 1), long])
    pad = torch.ones(2, 9, dtype=torch.bool)
    pad[0, :5] = False
    for options in ({}, {"temperature": 1.0, "seed": 4}, {"beams": 3}):
        together = run(model, ids, pad, max_tokens=10, **options)
        for row, alone in enumerate((short, long)):
            assert together[row].tolist() == run(model, alone, max_tokens=10, **options)[0].tolist()


def test_a_row_ends_at_its_end_token(model):
    free = run(model, prompt(2), max_tokens=12)
    end = int(free[0, 3])
    out = run(model, prompt(2), ends=[end], max_tokens=12)
    first = free[0].tolist().index(end)
    assert out[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert set(out[0, first + 1 :].tolist()) <= {ENDED}
    assert len(list(out[0])) <= 12


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 4}, {"repetition_penalty": 1.3}])
def test_rows_that_have_ended_cost_nothing(model, options, monkeypatch):
    ids, read = prompt(4), []
    free = run(model, ids, max_tokens=12, **options).tolist()
    ends = [free[1][2], free[3][5]]
    decode = LanguageModel.decode
    monkeypatch.setattr(LanguageModel, "decode", lambda self, x, *given: read.append(len(x)) or decode(self, x, *given))
    out = run(model, ids, ends=ends, max_tokens=12, **options).tolist()
    for said, whole in zip(out, free, strict=True):
        stop = next((i + 1 for i, token in enumerate(whole) if token in ends), 12)
        assert said == (whole[:stop] + [ENDED] * (12 - stop))[: len(said)]
    assert read == sorted(read, reverse=True) and 0 < min(read) < 4


def test_a_seed_repeats_and_another_does_not(model):
    draw = lambda seed: run(model, prompt(), max_tokens=20, temperature=1.5, seed=seed).tolist()  # noqa: E731
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_sampling_draws_as_often_as_it_should():
    torch.manual_seed(0)
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.07, 0.03]]).log()
    kept = lambda **o: (narrow(logits, Sampling(**o)) > -torch.inf)[0].tolist()  # noqa: E731
    assert kept(top_k=2) == [True, True, False, False, False]
    assert kept(top_p=0.7) == [True, True, False, False, False]
    assert kept(top_p=0.0) == [True, False, False, False, False]
    assert kept(min_p=0.2) == [True, True, True, False, False]
    assert kept() == [True] * 5


def test_sampled_frequencies_are_the_probabilities(model):
    rows = 400
    ids = prompt(1).expand(rows, -1)
    x = model.embed.words(ids)
    first = torch.cat([next(generate(model, ids[:1], x[:1], Sampling(temperature=1.0, seed=s))) for s in range(rows)])
    with torch.no_grad():
        odds = model(ids[:1])[0, -1].softmax(-1)
    seen = torch.bincount(first, minlength=50) / rows
    assert (seen - odds).abs().max() < 0.1


def test_repetition_penalty():
    logits = torch.tensor([[2.0, -2.0, 1.0]])
    assert penalise(logits, torch.tensor([[0, 1, 1]]), 2.0).tolist() == [[1.0, -4.0, 1.0]]


def test_more_beams_find_a_likelier_answer(model):
    def score(out):
        whole = torch.cat([prompt(), out], 1)
        with torch.no_grad():
            odds = model(whole[:, :-1]).log_softmax(-1)
        return odds.gather(2, whole[:, 1:, None])[:, -out.shape[1] :].sum().item()

    assert score(run(model, prompt(), max_tokens=8, beams=6)) >= score(run(model, prompt(), max_tokens=8)) - 1e-4


@pytest.mark.parametrize(
    "bad", [{"temperature": -1}, {"top_p": 1.5}, {"max_tokens": 0}, {"beams": 0}, {"beams": 2, "temperature": 1.0}]
)
def test_options_are_checked(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Sampling(**bad)


def test_splice_counts():
    x, slots = torch.zeros(1, 5, 3), torch.tensor([[False, True, True, False, False]])
    out = splice(x, slots, torch.ones(1, 2, 3))
    assert out[0, :, 0].tolist() == [0, 1, 1, 0, 0]
    with pytest.raises(InputError, match="2 places for media vectors and the media have 3 vectors"):
        splice(x, slots, torch.ones(1, 3, 3))
