from __future__ import annotations

import pytest
import torch
import transformers as tf

from panmodal.generate import Sampling, generate
from tests.parity.reference import TEXT, VISION, close, load, pictures, tokens, write

LM = {**TEXT, "hidden_size": 64, "num_key_value_heads": 2, "eos_token_id": None, "max_position_embeddings": 128}
CASES = {
    "clip-llama": dict(vision="clip_vision_model", text="llama"),
    "clip-full": dict(vision="clip_vision_model", text="llama", vision_feature_select_strategy="full"),
    "clip-first-layers": dict(vision="clip_vision_model", text="llama", vision_feature_layer=1),
    "siglip-qwen2": dict(
        vision="siglip_vision_model", text="qwen2", vision_feature_layer=-2, vision_feature_select_strategy="full"
    ),
    "mistral-no-bias": dict(vision="clip_vision_model", text="mistral", multimodal_projector_bias=False),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    case = dict(CASES[request.param])
    config = tf.LlavaConfig(
        vision_config={"model_type": case.pop("vision"), **VISION},
        text_config={"model_type": case.pop("text"), **LM},
        image_token_index=99,
        **case,
    )
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write(tf.LlavaForConditionalGeneration(config), folder)
    return load(folder), theirs


def prompt(family, rows=1, pictures_each=1):
    places = torch.full((rows, family.processor.image_vectors), 99)
    pieces = [tokens(rows, 2)]
    for _ in range(pictures_each):
        pieces += [places, tokens(rows, 3)]
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_logits(pair, count):
    family, theirs = pair
    ids, images = prompt(family, 2, count), pictures(2 * count)
    with torch.no_grad():
        close(family.model(ids, images), theirs(input_ids=ids, pixel_values=images).logits, 1e-4)
        close(family.model(tokens()), theirs(input_ids=tokens()).logits)


def test_generation(pair):
    family, theirs = pair
    ids, images = prompt(family, 2), pictures(2)
    with torch.no_grad():
        x = family.model.vectors(ids, family.model.encode(images))
    ours = torch.stack(list(generate(family.language, ids, x, Sampling(max_tokens=32))), 1)
    expected = theirs.generate(input_ids=ids, pixel_values=images, max_new_tokens=32, do_sample=False, pad_token_id=0)
    assert ours.tolist() == expected[:, ids.shape[1] :].tolist()
