"""ImageBind's objective and recipe: what is learned against pictures, and what never meets."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import panmodal as pm
from panmodal.data.sample import Sample, user
from panmodal.playground import make_scene, render, sound
from panmodal.playground.speech import audio_sample, depth_sample
from panmodal.training import Stage, read_recipe, train
from panmodal.training.losses import contrastive_loss
from panmodal.training.run import build, open_source
from panmodal.training.stages import OBJECTIVES
from tests.families.small import small

ANCHORED = OBJECTIVES["anchored"]
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "bind.toml"


def batch(family, samples):
    return ANCHORED.batch(family.processor, [ANCHORED.encode(family.processor, s) for s in samples])


def test_the_loss_is_the_mean_over_the_kinds_against_the_picture():
    """And of sounds against captions there is none: it is the same however these two lie to each other."""
    family = small("imagebind", std=0.3)
    both = [
        Sample((user(*audio_sample(seed).media, *depth_sample(seed).media[1:], f"number {seed}"),))
        for seed in (0, 2, 4)
    ]
    made = batch(family, both)
    assert list(made.media) == ["audio", "depth", "text"] and len(made.images) == 3
    with torch.no_grad():
        logits = family.model(made.images, made.media, made.pad)
        expected = sum(contrastive_loss(logits[kind]) for kind in logits) / 3
        torch.testing.assert_close(ANCHORED.loss(family.model, made), expected)


def test_scenes_that_sound_alike_are_no_negatives():
    family = small("imagebind", std=0.3)
    heard = pm.Audio(sound(make_scene(0)), 16_000)
    made = batch(family, [Sample((user(pm.Image(render(make_scene(seed))), heard),)) for seed in (0, 1)])
    with torch.no_grad():  # both sounds fit both pictures
        logits = family.model(made.images, made.media)["audio"]
        torch.testing.assert_close(ANCHORED.loss(family.model, made), contrastive_loss(logits, torch.ones(2, 2)))


def test_a_batch_of_one_pair_or_several_but_of_one_mixture():
    family = small("imagebind")
    assert list(batch(family, [audio_sample(0), audio_sample(1)]).media) == ["audio"]
    with pytest.raises(pm.InputError, match="differ in their kinds"):
        batch(family, [audio_sample(0), depth_sample(1)])


@pytest.mark.parametrize(
    "parts",
    [
        [pm.Image(np.zeros((8, 8, 3), np.uint8))],
        [pm.Audio(np.zeros(9, np.int16), 8000), "a sound and a text"],
        [pm.Image(np.zeros((8, 8, 3), np.uint8)), *[pm.Audio(np.zeros(9, np.int16), 8000)] * 2],
        [pm.Image(np.zeros((8, 8, 3), np.uint8)), pm.Video(np.zeros((2, 8, 8, 3), np.uint8), 1)],
    ],
)
def test_what_cannot_be_bound(parts):
    with pytest.raises(pm.InputError, match="has one picture, and one medium of each other kind"):
        ANCHORED.encode(small("imagebind").processor, Sample((user(*parts),)))


def test_sounds_that_cannot_be_heard_are_skipped():
    broken = Sample((user(pm.Image(np.zeros((8, 8, 3), np.uint8)), pm.Audio(np.full(9, np.nan, np.float32), 8000)),))
    with pytest.raises(pm.InputError, match="not finite"):
        ANCHORED.encode(small("imagebind").processor, broken)


def test_the_recipe_never_pairs_a_sound_with_a_text():
    for stage in tomllib.loads(RECIPE.read_text())["stages"]:
        for seed in range(20):
            sample = open_source(stage["data"]).sample(seed)
            assert len(sample.media) == 2 and sample.media[0].kind == "image"
            assert not any(message.text for message in sample.messages)


def test_the_recipe_begins_with_the_towers_of_tiny_clip():
    family, clip = build(read_recipe(RECIPE).model), pm.load("tiny/clip")
    items = [pm.Image(render(make_scene(3, "test"))), "a red circle", "two blue stars and a green square"]
    torch.testing.assert_close(family.embed(items), clip.embed(items), rtol=0, atol=1e-5)
    stage = Stage("s", "anchored", "", {"audio": 1e-3, "scales.audio": 1e-3}, steps=1, batch=4)
    before = {name: p.clone() for name, p in family.model.named_parameters()}
    for _ in train(family, open_source("playground/audio_pairs"), stage):
        pass
    changed = {name.split(".")[0] for name, p in family.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"audio", "scales"}  # what pictures and texts are to each other stays


def test_only_a_clip_has_towers_to_take(tmp_path):
    small("siglip").save(tmp_path / "siglip")
    for change, told in {
        f"model.towers={tmp_path / 'siglip'}": "the towers must be a CLIP's",
        "model.config.model_type=clip": "takes over no towers; imagebind does",
    }.items():
        with pytest.raises(pm.InputError, match=told):
            build(read_recipe(RECIPE, [change]).model)
