"""SAM, from files of the reference library: encoder, prompts, decoder, pictures, masks, and the masks of everything."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from transformers.models.sam import image_processing_pil_sam as theirs_everything

from panmodal.data.masks import from_rle, to_rle
from panmodal.data.sample import Image
from panmodal.encoders import grid
from panmodal.generators import everything
from panmodal.generators.masks import ALL, BACKGROUND, FOREGROUND, NOWHERE, SEVERAL, SINGLE
from tests.parity.reference import close, load, pictures, write

VISION = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, output_channels=24, num_pos_feats=12)
CASES = {  # windows that divide the grid, that do not, and that are larger than it
    "windows-divide": (64, 8, dict(window_size=4, global_attn_indexes=[1])),
    "windows-stick-out": (96, 8, dict(window_size=5, global_attn_indexes=[0, 2])),
    "one-window": (48, 16, dict(window_size=7, global_attn_indexes=[], qkv_bias=False, mlp_dim=40)),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    size, patch, vision = CASES[request.param]
    sizes = dict(image_size=size, patch_size=patch)
    config = tf.SamConfig(
        vision_config={**VISION, **sizes, **vision},
        prompt_encoder_config=dict(hidden_size=24, mask_input_channels=8, **sizes),
        mask_decoder_config=dict(
            hidden_size=24, mlp_dim=40, num_attention_heads=2, iou_head_hidden_dim=20, iou_head_depth=4
        ),
    )
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write(tf.SamModel(config), folder)
    for head in theirs.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data *= 50  # so that masks are not all almost zero
    theirs.save_pretrained(folder)
    square = {"height": size, "width": size}
    processor = tf.SamImageProcessorPil(size={"longest_edge": size}, pad_size=square)
    processor.save_pretrained(folder)
    return load(folder), theirs, tf.SamProcessor(processor)


@torch.no_grad()
def test_features(pair):
    family, theirs, _ = pair
    images = pictures(2, *[family.transform.width] * 2)
    close(family.model.encode(images).movedim(-1, 1), theirs.get_image_embeddings(images))


@torch.no_grad()
def test_features_in_pieces(pair, monkeypatch):
    """What positions add to scores is made for as few rows of queries at a time as memory asks for."""
    family, _, _ = pair
    images = pictures(2, *[family.transform.width] * 2)
    whole = family.model.encode(images)
    biases = []
    attention = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *given, attn_mask, **more: biases.append(attn_mask) or attention(*given, attn_mask=attn_mask, **more),
    )
    monkeypatch.setattr(grid, "PIECE", 1000)
    torch.testing.assert_close(family.model.encode(images), whole, rtol=0, atol=1e-4)
    assert any(bias.shape[2] < bias.shape[3] for bias in biases)
    for bias in biases:
        queries, keys = bias.shape[2:]
        assert bias.numel() <= 1000 or queries**2 == keys  # one row


POINTS = torch.tensor([[[5.0, 3.0], [20.0, 30.5]], [[40.0, 11.0], [0.0, 47.0]]])
KINDS = torch.tensor([[FOREGROUND, BACKGROUND], [FOREGROUND, FOREGROUND]])
BOXES = torch.tensor([[4.0, 2.0, 30.0, 21.0], [10.0, 10.0, 47.0, 33.0]])


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["points", "boxes", "both", "masks"])
@pytest.mark.parametrize("which", [SEVERAL, SINGLE])
def test_masks_of_a_batch(pair, prompt, which):
    """Two pictures, one prompt each."""
    family, theirs, _ = pair
    images = pictures(2, *[family.transform.width] * 2)
    corners, sides = BOXES.view(2, 2, 2), torch.tensor([[2, 3], [2, 3]])
    nowhere = torch.zeros(2, 1, 2), torch.full((2, 1), NOWHERE)
    points, kinds, given = POINTS, KINDS, {}
    if prompt in ("points", "both"):
        given |= {"input_points": POINTS[:, None], "input_labels": KINDS[:, None]}
    if prompt in ("boxes", "both"):
        given["input_boxes"] = BOXES[:, None]
    if prompt == "points":
        points, kinds = (torch.cat(pair, 1) for pair in zip((points, kinds), nowhere, strict=True))
    elif prompt == "boxes":
        points, kinds = corners, sides
    else:
        points, kinds = torch.cat([points, corners], 1), torch.cat([kinds, sides], 1)
        given["input_boxes"] = BOXES[:, None]
        given |= {"input_points": POINTS[:, None], "input_labels": KINDS[:, None]}
    masks = None
    if prompt == "masks":
        masks = torch.randn(2, *[4 * family.model.encoder.embed.grid] * 2)
        given["input_masks"] = masks[:, None]
    expected = theirs(pixel_values=images, multimask_output=which == SEVERAL, **given)
    logits, scores = family.model(images, points, kinds, masks, which)
    close(logits, expected.pred_masks[:, 0])
    close(scores, expected.iou_scores[:, 0])


@torch.no_grad()
def test_masks_of_a_mask_alone(pair):
    family, theirs, _ = pair
    images = pictures(1, *[family.transform.width] * 2)
    masks = torch.randn(1, *[4 * family.model.encoder.embed.grid] * 2)
    expected = theirs(pixel_values=images, input_masks=masks[:, None])
    logits, scores = family.model(images, torch.zeros(1, 0, 2), torch.zeros(1, 0, dtype=torch.long), masks)
    close(logits, expected.pred_masks[:, 0])
    close(scores, expected.iou_scores[:, 0])


@torch.no_grad()
def test_many_prompts_about_one_picture_are_those_one_by_one(pair):
    family, _, _ = pair
    features = family.model.encode(pictures(1, *[family.transform.width] * 2))
    together = family.model.decode(features, POINTS, KINDS, which=ALL)
    for i in range(2):
        alone = family.model.decode(features, POINTS[i : i + 1], KINDS[i : i + 1], which=ALL)
        for ours, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[i : i + 1], expected, rtol=0, atol=1e-4)


def photos(fixtures, count):
    return [Image(path) for path in sorted((fixtures / "photos").glob("*.jpg"))[:count]]


def odd():
    """Sizes at which rounding shows"""
    noise = torch.Generator().manual_seed(0)
    return [
        Image(torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=noise).numpy())
        for size in ((31, 17), (500, 20), (97, 1024), (64, 64), (1, 1), (2, 33))
    ]


def test_pictures(pair, fixtures):
    family, _, processor = pair
    for image in [*photos(fixtures, 48), *odd()[:4]]:
        expected = processor(images=image.pixels, return_tensors="pt")
        assert (family.processor.pictures([image]) - expected["pixel_values"]).abs().max() < 1e-3
        height, width = expected["reshaped_input_sizes"][0].tolist()
        assert family.transform.fitted(*image.pixels.size) == (width, height)


def test_the_published_size_of_pictures(tmp_path, fixtures):
    from panmodal.data.pictures import PaddedTransform

    theirs = tf.SamImageProcessorPil()
    theirs.save_pretrained(tmp_path)
    ours = PaddedTransform.from_config(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    for image in photos(fixtures, 4):
        expected = theirs(image.pixels, return_tensors="pt")["pixel_values"]
        assert (ours([image.pixels]) - expected).abs().max() < 1e-3


CLICKS = dict(points=[(3, 2), (11.5, 8)], labels=[1, 0])


@pytest.mark.parametrize("prompt", [CLICKS, dict(boxes=[(1, 1, 14, 9)]), dict(boxes=[(1, 1, 9, 9), (2, 0, 15, 7)])])
@torch.no_grad()
def test_segment(pair, fixtures, prompt):
    """From a picture to masks of its size."""
    family, theirs, processor = pair
    for image in [*photos(fixtures, 3), *odd()[:2], odd()[3]]:
        given = {}
        if "points" in prompt:
            given |= {"input_points": [[list(map(list, prompt["points"]))]], "input_labels": [[prompt["labels"]]]}
        if "boxes" in prompt:
            given["input_boxes"] = [list(map(list, prompt["boxes"]))]
        batch = processor(images=image.pixels, return_tensors="pt", **given)
        original, reshaped = batch.pop("original_sizes"), batch.pop("reshaped_input_sizes")
        batch = {k: v.float() if v.is_floating_point() else v for k, v in batch.items()}
        for several in (False, True):
            expected = theirs(**batch, multimask_output=several)
            ours = family.segment(image, **prompt, several=several)
            close(ours.logits, expected.pred_masks[0].flatten(0, 1), 1e-4)
            close(ours.scores, expected.iou_scores[0].flatten(), 1e-4)
            (masks,) = processor.post_process_masks(expected.pred_masks, original, reshaped)
            assert ours.masks.shape[1:] == image.pixels.size[::-1]
            assert (ours.masks != masks.flatten(0, 1)).float().mean() < 1e-3  # but for logits that are almost zero


def test_saved_as_published(pair, tmp_path):
    family, theirs, _ = pair
    family.save(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    expected = {k: v for k, v in theirs.state_dict().items() if not k.startswith("prompt_encoder.shared_embedding")}
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[k], v) for k, v in expected.items())
    again, told = tf.SamModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert torch.equal(
        again.state_dict()["mask_decoder.mask_tokens.weight"], expected["mask_decoder.mask_tokens.weight"]
    )


# The parts of segmenting everything


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (97, 64)])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_crops(size, layers):
    width, height = size
    expected, _ = theirs_everything._generate_per_layer_crops(layers, 512 / 1500, (height, width))
    assert [list(crop) for crop in everything.crops(width, height, layers)] == expected


@pytest.mark.parametrize("side", [1, 7, 32])
def test_point_grid(side):
    expected = torch.from_numpy(theirs_everything._build_point_grid(side))
    torch.testing.assert_close(everything.point_grid(side).double(), expected, rtol=0, atol=1e-6)


def blobs(count=12, height=40, width=60):
    """Logits of smooth masks, one of them empty"""
    noise = torch.randn(count, 1, 6, 8, generator=torch.Generator().manual_seed(3))
    logits = torch.nn.functional.interpolate(3 * noise, (height, width), mode="bicubic")[:, 0]
    logits[0] = -4
    return logits


def test_stability_boxes_and_run_lengths():
    logits = blobs()
    expected = theirs_everything._compute_stability_score(logits, 0, 1)
    torch.testing.assert_close(everything.stability(logits), expected, equal_nan=True)
    masks = logits > 0
    boxes = everything.boxes_around(masks)
    inclusive = boxes - torch.tensor([0, 0, 1, 1]) * (boxes.sum(1, keepdim=True) > 0)
    assert torch.equal(inclusive, theirs_everything._batched_mask_to_box(masks))
    whole = torch.ones(3, 4, dtype=torch.bool)
    for mask in [*masks, whole, ~whole]:
        (rle,) = theirs_everything._mask_to_rle(mask[None])
        assert to_rle(mask) == rle
        assert torch.equal(from_rle(rle), mask)


def test_boxes_cut_off_by_a_crop():
    random = torch.Generator().manual_seed(0)
    low = torch.randint(0, 300, (500, 2), generator=random)
    boxes = torch.cat([low, low + torch.randint(1, 150, (500, 2), generator=random)], dim=1)
    inclusive = boxes - torch.tensor([0, 0, 1, 1])
    for crop in ((0, 0, 640, 480), (0, 0, 300, 250), (200, 100, 500, 480)):
        local = inclusive - torch.tensor(crop[:2] * 2)
        expected = theirs_everything._is_box_near_crop_edge(local, list(crop), [0, 0, 640, 480])
        assert torch.equal(everything.cut_off(boxes, crop, 640, 480), expected)


@torch.no_grad()
def test_everything_before_suppression(pair, fixtures):
    """The reference's own filter, on the reference's own masks; with nothing suppressed, we find the same."""
    family, theirs, processor = pair
    image = photos(fixtures, 1)[0]
    filters = processor.image_processor
    _, points, _, labels = filters.generate_crop_boxes(image.pixels, family.transform.width, points_per_crop=5)
    batch = processor(images=image.pixels, return_tensors="pt")
    answer = theirs(pixel_values=batch["pixel_values"], input_points=points.float(), input_labels=labels)
    (masks,) = filters.post_process_masks(
        answer.pred_masks, batch["original_sizes"], batch["reshaped_input_sizes"], binarize=False
    )
    size = image.pixels.size[::-1]
    score, steady = answer.iou_scores.median().item(), 0.6
    rles, scores, boxes = filters.filter_masks(masks, answer.iou_scores[0], size, [0, 0, *size[::-1]], score, steady)
    found = family.segment_everything(image, points_per_side=5, min_score=score, min_stability=steady, max_overlap=1.0)
    assert 3 < len(found) == len(rles)
    order = scores.argsort(descending=True, stable=True)
    close(torch.tensor([s.score for s in found]), scores[order], 1e-4)
    for segment, i in zip(found, order.tolist(), strict=True):
        mask = from_rle(rles[i])
        assert (segment.mask != mask).float().mean() < 1e-3
        assert (torch.tensor(segment.box) - boxes[i] - torch.tensor([0, 0, 1, 1])).abs().max() <= 1
        assert segment.area == segment.mask.sum() and torch.equal(from_rle(segment.rle), segment.mask)
