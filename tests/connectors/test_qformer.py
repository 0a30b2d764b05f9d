"""Who sees whom in the Q-Former, by its outputs: what a changed token may change, and what it may not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panmodal.cache import Source
from panmodal.connectors import QFormer
from panmodal.connectors.qformer import sight_mask
from panmodal.embeddings import TokenEmbedding
from panmodal.transformer import TransformerConfig, initialise

QUERIES, WORDS = 4, 7


@pytest.fixture(scope="module")
def qformer():
    torch.manual_seed(0)
    config = TransformerConfig(dim=16, depth=3, heads=2, pre_norm=False, final_norm=False)
    made = QFormer(config, QUERIES, source_dim=12, embed=TokenEmbedding(30, 16, positions=WORDS))
    initialise(made, 0.3)
    return made.eval()


def source(seed: int = 0, rows: int = 1) -> Source:
    return Source(torch.randn(rows, 5, 12, generator=torch.Generator().manual_seed(seed)))


def changed(qformer, sight, *, word=None, picture=False) -> torch.Tensor:
    """Which of the outputs, queries and then words, are others when a word or the picture is another."""
    ids = torch.arange(3, 3 + WORDS)[None]
    other = ids.clone()
    if word is not None:
        other[0, word] = 20
    with torch.no_grad():
        before = qformer(source(), ids, None, sight)
        after = qformer(source(1 if picture else 0), other, None, sight)
    return (before - after).abs().amax(-1)[0] > 1e-6


@pytest.mark.parametrize("word", range(WORDS))
def test_what_a_word_changes(qformer, word):
    place = torch.arange(QUERIES + WORDS)
    assert changed(qformer, "bidirectional", word=word).all()
    assert changed(qformer, "unimodal", word=word).tolist() == (place >= QUERIES).tolist()
    assert changed(qformer, "causal", word=word).tolist() == (place >= QUERIES + word).tolist()


def test_what_a_picture_changes(qformer):
    queries = torch.arange(QUERIES + WORDS) < QUERIES
    assert changed(qformer, "bidirectional", picture=True).all()
    assert changed(qformer, "causal", picture=True).all()
    assert changed(qformer, "unimodal", picture=True).tolist() == queries.tolist()


def test_unimodal_is_each_alone(qformer):
    ids = torch.arange(3, 3 + WORDS)[None]
    with torch.no_grad():
        both = qformer(source(), ids, None, "unimodal")
        torch.testing.assert_close(both[:, :QUERIES], qformer(source()))
        torch.testing.assert_close(both[:, QUERIES:], qformer(None, ids))


@pytest.mark.parametrize("sight", ["unimodal", "bidirectional", "causal"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(qformer, sight, side):
    ids = torch.arange(3, 3 + WORDS).expand(2, -1)
    pad = torch.ones(2, WORDS, dtype=torch.bool)
    pad[0, slice(3) if side == "left" else slice(4, None)] = False
    real = torch.cat([torch.ones(2, QUERIES, dtype=torch.bool), pad], dim=1)
    with torch.no_grad():
        padded = qformer(source(rows=2), ids, pad, sight)
        alone = qformer(Source(source(rows=2).vectors[:1]), ids[:1, pad[0]], None, sight)
    torch.testing.assert_close(padded[0][real[0]], alone[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.sampled_from(["unimodal", "bidirectional", "causal"]))
def test_everybody_sees_somebody_and_nobody_sees_padding(queries, words, sight):
    pad = torch.arange(words)[None] < torch.tensor([[words], [1]])
    mask = sight_mask(sight, queries, pad)[:, 0]
    assert mask.any(dim=-1).all()
    hidden = torch.cat([torch.zeros(2, queries, dtype=torch.bool), ~pad], dim=1)
    itself = torch.eye(queries + words, dtype=torch.bool)
    assert not (mask & hidden[:, None] & ~itself).any()
