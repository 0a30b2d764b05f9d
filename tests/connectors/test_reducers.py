"""Connectors that leave fewer tokens: which, how many, and what they are made of."""

from __future__ import annotations

import pytest
import torch

from panmodal.connectors import CONNECTORS, make_connector
from panmodal.connectors.reducers import _merge
from panmodal.errors import InputError


@pytest.mark.parametrize("kind", CONNECTORS)
@pytest.mark.parametrize("patches", [16, 36])
def test_there_are_as_many_vectors_as_told(kind, patches):
    torch.manual_seed(0)
    connector = make_connector(kind, 32, 24)
    assert connector(torch.randn(2, patches, 32)).shape == (2, connector.tokens(patches), 24)


def test_what_is_merged_is_the_mean_of_the_likest_and_keeps_its_place():
    vectors = torch.eye(4)
    x = vectors[[0, 1, 2, 2, 3, 0]][None]  # the fourth is like the third, and the sixth like the first
    once, sizes = _merge(x, torch.ones(1, 6), 1)
    assert torch.equal(once[0], vectors[[0, 1, 2, 3, 0]]) or torch.equal(once[0], vectors[[0, 1, 2, 2, 3]])
    twice, sizes = _merge(x, torch.ones(1, 6), 2)
    assert torch.equal(twice[0], vectors[:4]) and sizes.tolist() == [[2, 1, 2, 1]]


def test_a_mean_weighs_each_token_alike():
    x = torch.tensor([[[1.0, 0.0], [4.0, 0.1]]])
    merged, sizes = _merge(x, torch.tensor([[3.0, 1.0]]), 1)
    torch.testing.assert_close(merged, torch.tensor([[[1.75, 0.025]]]))
    assert sizes.tolist() == [[4.0]]


def test_merging_learns_through_what_is_merged():
    features = torch.randn(1, 9, 8, requires_grad=True)
    make_connector("token_merging", 8, 4)(features).sum().backward()
    assert (features.grad != 0).any(-1).all()


def test_the_abstractor_knows_where_things_are():
    torch.manual_seed(0)
    connector = make_connector("abstractor", 8, 6).eval()
    features = torch.randn(1, 64, 8)
    other = features.clone()
    other[0, 63] += 1  # the last patch, in a corner
    changed = (connector(features) - connector(other)).abs().amax(-1)[0] > 1e-3
    assert changed[15] and changed.view(4, 4).sum() >= 1
    with pytest.raises(InputError, match="a square grid of patches, not 12"):
        connector(torch.randn(1, 12, 8))


@pytest.mark.parametrize("kind", CONNECTORS)
def test_every_connector_learns_over_a_frozen_encoder(kind):
    """As in a first stage; an abstractor's backward pass once ended the process there, without a word."""
    connector = make_connector(kind, 32, 6)
    connector(torch.randn(4, 144, 32)).sum().backward()
    assert all(p.grad is not None for p in connector.parameters())


@pytest.mark.parametrize("kind", ["qformer", "resampler"])
def test_learned_queries_do_not_mind_the_order_of_patches(kind):
    torch.manual_seed(0)
    connector = make_connector(kind, 32, 6)
    features = torch.randn(1, 9, 32)
    torch.testing.assert_close(connector(features), connector(features.flip(1)))
