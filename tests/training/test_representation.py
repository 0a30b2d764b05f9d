"""BLIP-2's first stage: what the three losses are of, and where its wrong pairs come from."""

from __future__ import annotations

import pytest
import torch

from panmodal.cache import Source
from panmodal.training import losses
from panmodal.training.losses import hard_negatives
from panmodal.training.representation import matching_losses, representation_loss
from panmodal.training.stages import OBJECTIVES, PRESETS, Stage, parameter_groups
from tests.families.small import small
from tests.families.test_every_family import samples


def batch_of(family, samples):
    objective = OBJECTIVES["representation"]
    return objective.batch(family.processor, [objective.encode(family.processor, s) for s in samples])


def test_wrong_pairs_are_the_likeliest_of_the_others(monkeypatch):
    """Every picture is shown with its own text, with one of another, and every text with another picture."""
    monkeypatch.setattr(losses, "EVENLY", 0.0)
    family = small("blip2-itm")
    batch = batch_of(family, samples(with_picture=True))
    shown = []
    match = family.model.match
    monkeypatch.setattr(family.model, "match", lambda s, ids, pad: shown.append((s.vectors, ids)) or match(s, ids, pad))
    source = Source(family.model.encoder(batch.images))
    likely = torch.full((4, 4), -50.0)
    likely[torch.arange(4), (torch.arange(4) + 1) % 4] = 50.0  # a picture's nearest wrong text is the next one
    pad = torch.ones_like(batch.ids, dtype=torch.bool) if batch.pad is None else batch.pad
    matching_losses(family.model, source, batch.ids, pad, likely, torch.eye(4, dtype=torch.bool))
    ((vectors, ids),) = shown
    assert torch.equal(ids, batch.ids[[0, 1, 2, 3, 1, 2, 3, 0, 0, 1, 2, 3]])
    assert torch.equal(vectors, source.vectors[[0, 1, 2, 3, 0, 1, 2, 3, 3, 0, 1, 2]])


def test_a_text_that_fits_is_never_drawn():
    logits, alike = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[True, False, True]])
    assert all(hard_negatives(logits, alike)[1].item() == 1 for _ in range(20))


def test_a_batch_of_one_text_has_nothing_wrong_to_draw():
    family = small("blip2-itm")
    one = samples(with_picture=True)[:1]
    assert representation_loss(family.model, batch_of(family, one * 3)).isfinite()


@pytest.mark.parametrize(
    ("name", "kind", "trained"),
    [
        ("blip2-itm", "represent", {"qformer", "image_projection", "text_projection", "match_head"}),
        ("blip2", "generate", {"qformer", "connector"}),
        ("minigpt4", "minigpt4-align", {"connector"}),
        ("minigpt4", "minigpt4-instruct", {"connector"}),
    ],
)
def test_stages_freeze_what_they_should(name, kind, trained):
    model = small(name).model
    parameter_groups(model, Stage(kind, data="", steps=1, batch=1, **PRESETS[kind]))
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == trained
