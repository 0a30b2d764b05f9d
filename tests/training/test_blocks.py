"""Blocks that keep no activations, and compiled ones: less memory or time, and the same losses."""

from __future__ import annotations

import pytest
import torch

from panmodal.training import Stage, train
from panmodal.training.world import blocks, prepared
from panmodal.transformer import Block
from tests.families.small import small
from tests.families.test_every_family import Four


def losses(name: str, **how) -> list[float]:
    stage = Stage("s", "answers", "", {"all": 1e-3}, steps=3, batch=4, **how)
    return [step.loss for step in train(small(name), Four(name != "llama"), stage)]


@pytest.mark.parametrize("name", ["llava", "flamingo"])
def test_activations_are_made_again(name, monkeypatch):
    plain = losses(name)
    calls, forward = [], Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *given: calls.append(self) or forward(self, *given))
    losses(name)
    once = len(calls)
    calls.clear()
    assert losses(name, checkpointing=True) == plain
    assert once < len(calls) <= 2 * once


def test_compiled_blocks_learn_the_same(monkeypatch):
    compiled = []

    def compile_(self, **how):  # as it is used, but for the compiler of C++, which takes a minute
        compiled.append(self)
        torch.nn.Module.compile(self, backend="eager", **how)

    monkeypatch.setattr(Block, "compile", compile_, raising=False)
    assert losses("llama", compile=True) == pytest.approx(losses("llama"), abs=1e-5)
    assert len(compiled) == 2


def test_blocks_are_afterwards_as_they_were():
    model = small("llama").model
    with prepared(model, checkpointing=True, compiled=False):
        assert all("forward" in block.__dict__ for block in blocks(model))
    assert not any("forward" in block.__dict__ for block in blocks(model))
