"""LLaVA-NeXT and LLaVA-OneVision: pictures whole and in tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.sample import Image, user
from panmodal.generate import Sampling, generate
from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer
from tests.parity.reference import TEXT, VISION, close, write

GRIDS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
SIZES = [(50, 37), (33, 90), (64, 64), (200, 31)]  # height, width
WORDS = tokenizer()
IMAGE = WORDS.add_special("<image>")
LM = {**TEXT, "vocab_size": 400, "hidden_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 1024}


def next_model():
    return tf.LlavaNextForConditionalGeneration(
        tf.LlavaNextConfig(
            vision_config={"model_type": "clip_vision_model", **VISION},
            text_config={"model_type": "llama", **LM, "eos_token_id": None},
            image_token_index=IMAGE,
            image_grid_pinpoints=GRIDS,
        )
    ), tf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=GRIDS
    )


def onevision_model(limit):
    return tf.LlavaOnevisionForConditionalGeneration(
        tf.LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False},
            text_config={"model_type": "qwen2", **LM, "eos_token_id": None},
            image_token_index=IMAGE,
            video_token_index=399,  # no word
            image_grid_pinpoints=GRIDS,
            vision_aspect_ratio=f"anyres_max_{limit}",
        )
    ), tf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=GRIDS)


CASES = {"next": next_model, "onevision": lambda: onevision_model(9), "onevision-shrunk": lambda: onevision_model(1)}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    """Ours; the reference model; its image processor."""
    folder = tmp_path_factory.mktemp(request.param)
    model, images = CASES[request.param]()
    theirs = write(model, folder)
    images.save_pretrained(folder)
    for name, content in {**WORDS.to_files(), "chat_template.jinja": CHAT_TEMPLATE.encode()}.items():
        (folder / name).write_bytes(content)
    return pm.load(folder), theirs, images


def picture(size):
    return Image(np.random.default_rng(sum(size)).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("sizes", [*([s] for s in SIZES), SIZES])
def test_pictures_become_the_same_vectors(pair, sizes):
    family, theirs, processor = pair
    pictures = [picture(size) for size in sizes]
    encoded = family.processor.encode([user(*pictures, "what?")], reply=True)
    batch = family.processor.batch([encoded])
    seen = processor([[p.pixels for p in pictures]], return_tensors="pt")
    tiles = [t for p, s in zip(seen["pixel_values"], encoded.sizes, strict=True) for t in p[: count(family, s)]]
    close(batch.images, torch.stack(tiles), 1e-3)
    with torch.no_grad():
        found = theirs.model.get_image_features(**seen, return_dict=True).pooler_output
        ours = family.model.encode(batch.images, encoded.sizes)
        assert encoded.vectors == [len(v) for v in found]
        close(ours, torch.cat(found), 1e-4)


def count(family, size):
    rows, columns = family.model.tiles.tiling.plan(size).tiles
    return 1 + rows * columns


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES[:2]])
def test_logits_and_generation(pair, sizes):
    family, theirs, processor = pair
    pictures = [picture(size) for size in sizes]
    encoded = family.processor.encode([user(*pictures, "what is this?")], reply=True)
    batch = family.processor.batch([encoded])
    seen = processor([[p.pixels for p in pictures]], return_tensors="pt")
    with torch.no_grad():
        close(
            family.model(batch.ids, batch.images, sizes=batch.sizes), theirs(input_ids=batch.ids, **seen).logits, 1e-4
        )
        x = family.model.vectors(batch.ids, family.model.encode(batch.images, encoded.sizes))
    ours = torch.stack(list(generate(family.language, batch.ids, x, Sampling(max_tokens=32))), 1)
    expected = theirs.generate(input_ids=batch.ids, **seen, max_new_tokens=32, do_sample=False, pad_token_id=0)
    assert ours.tolist() == expected[:, batch.ids.shape[1] :].tolist()


def test_photos_are_cut_alike(pair, fixtures):
    family, _, processor = pair
    for path in sorted((fixtures / "photos").glob("*.jpg"))[:6]:
        photo = Image(path)
        encoded = family.processor.encode([user(photo, "what?")], reply=True)
        close(
            family.processor.pictures([photo], encoded.sizes),
            processor(Pil.open(path).convert("RGB"), return_tensors="pt")["pixel_values"][0],
            1e-3,
        )


def test_low_detail_is_the_whole_picture_alone(pair):
    family, _, _ = pair
    grid = family.model.encoder.embed.grid
    for detail, vectors in (("low", grid**2 + 1), ("high", None)):
        two = [Image(picture(size).source, detail) for size in SIZES[:2]]
        encoded = family.processor.encode([user(*two, "what?")], reply=True)
        assert all((v == vectors) == (detail == "low") for v in encoded.vectors)
    assert family.reply([user(two[0], "what?")], max_tokens=3) == family.reply([user(two[0], "what?")], max_tokens=3)
