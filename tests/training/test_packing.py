"""Several conversations in one row: what is learned is what each alone would teach."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panmodal.data.sample import Sample, assistant, user
from panmodal.errors import InputError
from panmodal.training import Stage, train
from panmodal.training.stages import OBJECTIVES
from panmodal.training.stream import Position, batches, fill
from panmodal.visibility import CONVERSATION, positions, visible
from tests.families.small import CHATS, SEERS, small
from tests.families.test_every_family import Four, scene_picture


def stage(**more) -> Stage:
    return Stage(**{**dict(name="s", objective="answers", data="", rates={"all": 1e-3}, steps=4, batch=4), **more})


def conversations(pictured: list[bool]) -> list[Sample]:
    """Of unlike lengths, some of several turns, some about a picture, or two"""
    made = []
    for i, shown in enumerate(pictured):
        pictures = [scene_picture(i)] * (1 + i % 2) if shown else []
        said = [user(*pictures, "what is it? " * (1 + i % 3)), assistant("a red star" if i % 2 else "blue")]
        made.append(Sample((*said, user("and what else?"), assistant("a " * (i + 1) + "circle")) if i % 3 else said))
    return made


def learned(family, objective, how, samples) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss and the gradients of a step, as `train` weighs its batches"""
    family.model.zero_grad()
    encoded = [objective.encode(family.processor, sample) for sample in samples]
    made = [objective.packed(family.processor, encoded)] if how == "packed" else []
    made = made or [objective.batch(family.processor, [one]) for one in encoded]
    weights = [objective.weight(batch) for batch in made]
    total = sum(objective.loss(family.model, b) * w / sum(weights) for b, w in zip(made, weights, strict=True))
    total.backward()
    return total.item(), {n: p.grad for n, p in family.model.named_parameters() if p.grad is not None}


def same(family, objective, samples) -> None:
    alone, expected = learned(family, objective, "alone", samples)
    together, gradients = learned(family, objective, "packed", samples)
    assert together == pytest.approx(alone, abs=1e-5)
    assert gradients.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5 * max(1, largest), rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", CHATS)
def test_packed_is_one_by_one(name):
    """For every family that converses, where it sees pictures with conversations without one among them"""
    pictured = [True, False, True, False] if name in SEERS else [False] * 4
    same(small(name), OBJECTIVES["answers"], conversations(pictured))


@pytest.mark.parametrize("objective", ["text", "separate_answers"])
def test_the_other_objectives_pack_too(objective):
    same(small("llava"), OBJECTIVES[objective], conversations([True, True, False]))


FAMILIES = {name: small(name) for name in ("llava", "flamingo")}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=6), st.sampled_from(["llava", "flamingo"]))
def test_any_mixture_packed_is_one_by_one(pictured, name):
    same(FAMILIES[name], OBJECTIVES["answers"], conversations(pictured))


def test_conversations_see_themselves_alone_and_start_at_0():
    pad = torch.tensor([[1, 1, 2, 3, CONVERSATION + 1, CONVERSATION + 1, 0]])
    assert positions(7, pad, pad.device)[0, :6].tolist() == [0, 1, 2, 2, 0, 1]
    seen = visible(pad)[0]
    assert seen[5].tolist() == [False] * 4 + [True, True, False]
    assert seen[3].tolist() == [True, True, False, True] + [False] * 3


@given(st.lists(st.integers(1, 120)), st.integers(1, 100))
def test_rows_are_filled_in_order_and_nothing_is_lost(lengths, room):
    rows = fill(lengths, lambda n: n, room)
    assert sorted(n for row in rows for n in row) == sorted(lengths)
    assert all(sum(row) <= room or len(row) == 1 for row in rows)
    half = sum(2 * sum(row) <= room for row in rows)
    assert half <= 1  # else the later of two such rows would have gone into the earlier


def test_a_step_is_the_same_samples_packed_or_not():
    family, source = small("llava"), Four(True)

    def first(**how):
        with closing(batches(source, family.processor, stage(**how), 0, Position())) as made:
            return [(sum(OBJECTIVES["answers"].weight(b) for b in step), at.taken) for step, at in islice(made, 3)]

    assert first(pack=True) == first(pack=60) == first()
    with closing(batches(source, family.processor, stage(pack=True), 0, Position())) as made:
        (step, _) = next(made)
    assert len(step) == 1 and step[0].ids.shape[0] == 1 and len(step[0].images) == 4


def test_training_packed_is_training_padded():
    def losses(**how):
        return [step.loss for step in train(small("llava"), Four(True), stage(**how))]

    assert losses(pack=True) == pytest.approx(losses(), abs=1e-4)


def test_what_does_not_pack():
    with pytest.raises(
        InputError, match="'contrastive' packs nothing; answers, separate_answers, conclusions, text do"
    ):
        stage(objective="contrastive", pack=True)
