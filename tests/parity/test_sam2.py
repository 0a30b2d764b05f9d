"""SAM 2's way with pictures, from files of the reference library."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from safetensors.torch import load_file

import panmodal as pm
from panmodal.generators.masks import BOTTOM_RIGHT, NOWHERE, SEVERAL, SINGLE, TOP_LEFT
from tests.parity.reference import close, load, pictures, write
from tests.parity.test_sam import BOXES, KINDS, POINTS, odd, photos

HIERA = dict(
    hidden_size=16,
    blocks_per_stage=[1, 2, 2, 1],
    embed_dim_per_stage=[16, 32, 48, 64],
    num_attention_heads_per_stage=[1, 2, 2, 4],
    window_positional_embedding_background_size=[3, 3],
)
CASES = {  # the side of pictures; windows that divide the grids, and that stick out of them
    "windows-divide": (128, dict(window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[4])),
    "windows-stick-out": (96, dict(window_size_per_stage=[8, 4, 14, 6], global_attention_blocks=[2, 4])),
}


def config_of(case, kind=tf.Sam2Config):
    side, hiera = CASES[case]
    grids = [[side // n, side // n] for n in (4, 8, 16)]
    return kind(
        vision_config=dict(
            backbone_config={"model_type": "sam2_hiera_det_model", **HIERA, **hiera, "image_size": [side, side]},
            backbone_channel_list=HIERA["embed_dim_per_stage"][::-1],
            backbone_feature_sizes=grids,
            fpn_hidden_size=32,
        ),
        prompt_encoder_config=dict(hidden_size=32, image_size=side, mask_input_channels=8),
        mask_decoder_config=dict(hidden_size=32, mlp_dim=40, num_attention_heads=2, iou_head_hidden_dim=20),
    )


def prepare(theirs, folder, side):
    write(theirs, folder)
    for head in theirs.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data *= 50  # so that masks are not all almost zero
    waves = theirs.shared_image_embedding.positional_embedding  # which in published files stand there twice
    theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(waves)
    theirs.save_pretrained(folder)
    square = {"height": side, "width": side}
    settings = {
        "image_processor_type": "Sam2ImageProcessor",
        "size": square,
        "mask_size": {"height": side // 4, "width": side // 4},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return theirs.eval()


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = prepare(tf.Sam2Model(config_of(request.param)), folder, CASES[request.param][0])
    return load(folder), theirs


@torch.no_grad()
def test_features_of_every_resolution(pair):
    family, theirs = pair
    images = pictures(2, *[family.transform.width] * 2)
    coarse, (finer, finest) = family.model.look(images)
    expected = theirs.get_image_embeddings(images)
    close(coarse.movedim(-1, 1), expected[2])
    rows, cols = coarse.shape[1:3]
    placed = finer.view(2, rows, cols, 2, 2, -1).permute(0, 5, 1, 3, 2, 4).reshape(expected[1].shape)
    close(placed, expected[1])
    placed = finest.view(2, rows, cols, 2, 2, 2, 2, -1).permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(expected[0].shape)
    close(placed, expected[0])


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["points", "boxes", "both", "masks"])
@pytest.mark.parametrize("which", [SEVERAL, SINGLE])
def test_masks_of_a_batch(pair, prompt, which):
    """Two pictures, one prompt each; a single mask that is not steady is the best of the several."""
    family, theirs = pair
    side = family.transform.width
    images, corners = pictures(2, side, side), BOXES.view(2, 2, 2)
    points, kinds, given = POINTS, KINDS, {}
    if prompt != "boxes":
        given |= {"input_points": POINTS[:, None], "input_labels": KINDS[:, None]}
    if prompt in ("boxes", "both"):
        given["input_boxes"] = BOXES[:, None]
        at = torch.tensor([[TOP_LEFT, BOTTOM_RIGHT]] * 2)
        points, kinds = (
            (corners, at) if prompt == "boxes" else (torch.cat([POINTS, corners], 1), torch.cat([KINDS, at], 1))
        )
    masks = torch.randn(2, side // 4, side // 4) if prompt == "masks" else None
    if masks is not None:
        given["input_masks"] = masks[:, None]
    if prompt in ("points", "masks"):  # the model itself ends those with a box
        points, kinds = F.pad(points, (0, 0, 0, 1)), F.pad(kinds, (0, 1), value=NOWHERE)
    for steady in (0.0, 0.98, 1.1):  # the first as it is, as published, the best of the several
        family.model.decoder.steady = theirs.mask_decoder.dynamic_multimask_stability_thresh = steady
        expected = theirs(pixel_values=images, multimask_output=which == SEVERAL, **given)
        logits, scores = family.model(images, points, kinds, masks, which)
        close(logits, expected.pred_masks[:, 0])
        close(scores, expected.iou_scores[:, 0])


@torch.no_grad()
def test_what_a_person_asks_of_photographs(pair, fixtures):
    """Points and boxes in pixels of the picture, masks of its size."""
    family, theirs = pair
    side = family.transform.width
    for image in (*photos(fixtures, 2), *odd()[:3]):
        width, height = image.pixels.size
        pixels = family.processor.pictures([image])
        at, box = [width * 0.4, height * 0.6], [width * 0.2, height * 0.1, width * 0.7, height * 0.8]
        scale = torch.tensor([side / width, side / height])
        for ours, given in (
            (dict(points=[tuple(at)]), dict(input_points=(torch.tensor(at) * scale)[None, None, None])),
            (dict(boxes=[tuple(box)]), dict(input_boxes=(torch.tensor(box) * scale.repeat(2))[None, None])),
        ):
            found = family.segment(image, **ours)
            expected = theirs(pixel_values=pixels, multimask_output="points" in ours, **given)
            close(found.logits, expected.pred_masks[0, 0])
            close(found.scores, expected.iou_scores[0, 0])
            full = F.interpolate(expected.pred_masks[0], (height, width), mode="bilinear", align_corners=False)[0]
            assert (found.masks == (full > 0)).float().mean() > 0.999


def test_pictures_are_stretched(pair, fixtures):
    """As torchvision, which the reference's processor calls, stretches pictures of bytes: to one step of 255."""
    family, _ = pair
    side, mean, std = family.transform.width, torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for image in (*photos(fixtures, 4), *odd()):
        pixels = torch.tensor(np.asarray(image.pixels)).permute(2, 0, 1)[None]
        expected = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)[0]
        ours = family.processor.pictures([image])[0] * std[:, None, None] + mean[:, None, None]
        assert (ours * 255 - expected).abs().max() <= 1.01


def test_everything(pair, fixtures):
    family, _ = pair
    found = family.segment_everything(photos(fixtures, 1)[0], points_per_side=4, min_score=0.0, min_stability=0.0)
    assert found and all(thing.area for thing in found)


def test_a_model_of_videos_goes_back_whole(tmp_path):
    """What only videos need is kept in the file, and not used."""
    case = "windows-divide"
    theirs = prepare(tf.Sam2VideoModel(config_of(case, tf.Sam2VideoConfig)), tmp_path / "a", CASES[case][0])
    family = load(tmp_path / "a")
    images = pictures(1, *[family.transform.width] * 2)
    pictured = tf.Sam2Model.from_pretrained(tmp_path / "a").eval()
    with torch.no_grad():
        close(family.model.encode(images).movedim(-1, 1), pictured.get_image_embeddings(images)[2])
    family.save(tmp_path / "b")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert theirs.config.model_type == pm.load(tmp_path / "b").config["model_type"]


def test_what_is_not_read(pair):
    family, _ = pair
    config = json.loads(json.dumps(dict(family.config)))
    config["vision_config"]["backbone_config"]["num_query_pool_stages"] = 2
    with pytest.raises(pm.CheckpointError, match="2 of which halve the grid"):
        type(family).build(config)
