"""What a person does with SAM; parity with the reference is in tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import panmodal as pm
from panmodal.data.masks import mask_iou
from panmodal.data.sample import Image
from panmodal.generators.everything import box_overlaps, boxes_around, mask_overlaps, suppress
from panmodal.playground import make_scene, masks, render
from tests.families.small import small
from tests.families.test_every_family import overfitted, scene_picture


@pytest.fixture(scope="module")
def sam():
    return overfitted("sam")[0]


def things(seed):
    """The masks of a scene's objects, and a point on each"""
    for mask in torch.from_numpy(masks(make_scene(seed), 32)):
        y, x = mask.nonzero().float().mean(0).tolist()
        yield mask, (x, y)


def test_a_click_and_a_box_cut_out_what_was_learned(sam):
    clicked, boxed = [], []
    for seed in range(4):
        seen = sam.embed_image(scene_picture(seed))
        for mask, point in things(seed):
            answer = sam.segment(seen, [point])
            assert answer.masks.shape == (3, 32, 32) and answer.masks.dtype == torch.bool
            assert answer.scores.shape == (3,) and answer.logits.shape == (3, 32, 32)
            clicked.append(float(mask_iou(answer.masks, mask)[answer.best]))
            ys, xs = mask.any(1).nonzero(), mask.any(0).nonzero()
            box = (int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
            boxed.append(float(mask_iou(sam.segment(seen, boxes=[box]).masks, mask)))
    assert sum(clicked) / len(clicked) > 0.7
    assert sum(boxed) / len(boxed) > 0.7


def test_everything_that_was_learned_is_found(sam):
    found = []
    for seed in range(4):
        segments = sam.segment_everything(
            scene_picture(seed), points_per_side=8, min_score=0.5, min_stability=0.3, max_overlap=0.7
        )
        assert [s.score for s in segments] == sorted((s.score for s in segments), reverse=True)
        for segment in segments:
            x0, y0, x1, y1 = segment.box
            assert segment.mask.shape == (32, 32) and segment.area == segment.mask.sum()
            assert segment.mask[y0:y1, x0:x1].sum() == segment.area
            assert segment.score > 0.5 and segment.stability > 0.3
        found += [any(mask_iou(s.mask, mask) > 0.6 for s in segments) for mask, _ in things(seed)]
    assert sum(found) > len(found) / 2


def test_stricter_thresholds_leave_fewer(sam):
    options = dict(points_per_side=6, min_score=0.0, min_stability=0.0, max_overlap=1.0)
    picture = scene_picture(1)
    every = sam.segment_everything(picture, **options)
    for option, value in {"min_score": 0.6, "min_stability": 0.6, "max_overlap": 0.5, "points_per_side": 2}.items():
        assert len(sam.segment_everything(picture, **{**options, option: value})) < len(every)
    assert sam.segment_everything(picture, min_score=2.0) == []


def test_crops_look_closer(sam):
    """Masks from crops lie where the things lie in the whole picture."""
    options = dict(points_per_side=4, min_score=0.3, min_stability=0.2)
    large = Image(render(make_scene(3), 96))
    plain, closer = (sam.segment_everything(large, crop_layers=layers, **options) for layers in (0, 1))
    assert all(s.mask.shape == (96, 96) for s in [*plain, *closer])
    for s in closer:
        x0, y0, x1, y1 = s.box
        assert s.area == s.mask[y0:y1, x0:x1].sum() == s.mask.sum()


def test_thresholds_may_come_from_the_configuration(sam):
    picture = scene_picture(1)
    sam.config["mask_generation"] = {"points_per_side": 4, "min_score": 0.5, "min_stability": 0.3}
    by_config = sam.segment_everything(picture)
    del sam.config["mask_generation"]
    given = sam.segment_everything(picture, points_per_side=4, min_score=0.5, min_stability=0.3)
    assert len(by_config) == len(given) > 0
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(by_config, given, strict=True))


def test_a_picture_encoded_once_answers_as_if_anew(sam, monkeypatch):
    picture = Image(render(make_scene(2), 41))
    seen = sam.embed_image(picture)
    encoded = []
    encode = sam.model.encode
    monkeypatch.setattr(sam.model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    grid = sam.model.prompts.grid
    monkeypatch.setattr(sam.model.prompts, "grid", lambda *sides: encoded.append(sides) or grid(*sides))
    first = sam.segment(seen, [(20, 20)])
    prompts = [dict(points=[(20, 20), (3, 4)], labels=[1, 0], mask=first.logits[0]), dict(boxes=[(5, 5, 20, 30)])]
    for prompt in prompts:
        kept = sam.segment(seen, **prompt)
        assert encoded == []
        anew = sam.segment(picture, **prompt)
        assert encoded == [1, seen.places.shape[:2]]
        encoded.clear()
        assert torch.equal(kept.masks, anew.masks) and torch.equal(kept.scores, anew.scores)


def test_boxes_are_a_prompt_each(sam):
    """And go through the decoder few at a time."""
    seen = sam.embed_image(scene_picture(1))
    boxes = [(2, 3, 12, 12), (10, 8, 30, 31), (0, 0, 32, 32)]
    counts = []
    hook = sam.model.decoder.register_forward_pre_hook(lambda _, given: counts.append(len(given[2])))
    together = sam.segment(seen, boxes=boxes)
    hook.remove()
    assert counts == [2, 1]
    assert together.masks.shape == (3, 32, 32)
    for i, box in enumerate(boxes):
        alone = sam.segment(seen, boxes=[box])
        torch.testing.assert_close(together.logits[i], alone.logits[0], rtol=0, atol=1e-4)
        assert together.scores[i] == pytest.approx(float(alone.scores[0]), abs=1e-5)
    assert sam.segment(seen, boxes=boxes, several=True).masks.shape == (9, 32, 32)


def test_one_mask_unless_the_prompt_may_mean_several_things(sam):
    seen = sam.embed_image(scene_picture(0))
    logits = sam.segment(seen, [(16, 16)]).logits[0]
    for prompt, count in (
        (dict(points=[(16, 16)]), 3),
        (dict(points=[(16, 16)], several=False), 1),
        (dict(points=[(16, 16), (1, 1)], labels=[1, 0]), 1),
        (dict(points=[(16, 16)], boxes=[(1, 1, 20, 20)]), 1),
        (dict(mask=logits), 1),
        (dict(points=[(16, 16)], mask=logits, several=True), 3),
    ):
        assert len(sam.segment(seen, **prompt).masks) == count


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "there is no prompt: give points, boxes or a mask"),
        (dict(points=[(32, 3)]), "the point 32,3 lies outside the picture, which is 32 x 24 pixels"),
        (dict(points=[(3, 24)]), "the point 3,24 lies outside"),
        (dict(points=[(float("nan"), 3)]), "the point nan,3 lies outside"),
        (dict(boxes=[(5, 5, 5, 9)]), "the box 5,5,5,9 is empty; it needs x0 < x1 and y0 < y1"),
        (dict(boxes=[(1, 1, 33, 9)]), "the box 1,1,33,9 reaches outside"),
        (dict(points=[(1, 1)], labels=[2]), "needs a label, 1 on the thing or 0 beside it"),
        (dict(points=[(1, 1)], labels=[1, 0]), "each of the 1 points needs a label"),
        (dict(points=[(1, 1)], boxes=[(1, 1, 5, 9)] * 2), "1 points go with one box, not with 2"),
        (dict(mask=torch.zeros(8, 8)), r"a mask prompt is the logits of one mask, \[32, 32\]"),
        (dict(points=[(1, 2, 3)]), "a point is 2 numbers"),
        (dict(boxes=[(1, 2, 3)]), "a box is 4 numbers"),
    ],
)
def test_prompts_that_cannot_be(prompt, message):
    picture = Image(render(make_scene(0), 32)[:24])
    with pytest.raises(pm.InputError, match=message):
        small("sam").segment(picture, **prompt)


def test_a_better_box_suppresses_those_like_it():
    boxes = torch.tensor([[0, 0, 11, 11], [1, 0, 12, 11], [30, 30, 40, 40], [0, 0, 6, 11]])
    scores = torch.tensor([0.8, 0.9, 0.1, 0.7])
    assert suppress(box_overlaps(boxes), scores, 0.7).tolist() == [1, 3, 2]  # IoU of the first two 9 / 11
    assert suppress(box_overlaps(boxes), scores, 0.9).tolist() == [1, 0, 3, 2]
    assert suppress(box_overlaps(boxes[:0]), scores[:0], 0.7).tolist() == []


def test_a_processor_of_another_size_is_refused(tmp_path):
    small("sam").save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 64}}')
    with pytest.raises(pm.CheckpointError, match="pictures of 64 pixels, config.json has the model read 32"):
        pm.load(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"longest_edge": 32}, "pad_size": {"height": 16}}')
    with pytest.raises(pm.InputError, match="panmodal reads squares of that length only"):
        pm.load(tmp_path)


def test_a_stray_pixel_does_not_make_two_things_of_one():
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[:, 2:8, 2:8] = True
    masks[1, 19, 19] = True
    scores = torch.tensor([0.9, 0.8])
    assert mask_overlaps(masks)[0, 1] == pytest.approx(36 / 37)
    assert suppress(mask_overlaps(masks), scores, 0.7).tolist() == [0]
    assert suppress(box_overlaps(boxes_around(masks)), scores, 0.7).tolist() == [0, 1]
    found = pm.load("tiny/sam").segment_everything(Image(Path(__file__).parents[2] / "examples" / "scene.png"))
    assert 3 <= len(found) <= 5  # there are three; by boxes it were six
