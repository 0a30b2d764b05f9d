from __future__ import annotations

import pytest
import torch
import transformers as tf

from tests.parity.reference import TEXT, VISION, close, load, pictures, tokens, write

# name -> (reference model, other picture sizes that it takes)
IMAGE_ENCODERS = {
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**VISION)),
    "vit-no-bias": lambda: tf.ViTModel(tf.ViTConfig(**VISION, qkv_bias=False), add_pooling_layer=False),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**VISION)),
    "dinov2-giant": lambda: tf.Dinov2Model(tf.Dinov2Config(**VISION, use_swiglu_ffn=True)),
    "clip": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)),
    "clip-projected": lambda: tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(**VISION)),
    "siglip": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)),
    "siglip-headless": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION, vision_use_head=False)),
}


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_image_encoder(name, tmp_path):
    theirs = write(IMAGE_ENCODERS[name](), tmp_path)
    ours = load(tmp_path).model
    images = pictures()
    with torch.no_grad():
        expected = theirs.vision_model(images) if name == "clip-projected" else theirs(images)
        close(ours(images), expected.last_hidden_state)
        if name in ("clip", "siglip"):
            close(ours.encoder.pooled(images), expected.pooler_output)


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip", "siglip"])
@pytest.mark.parametrize("size", [(48, 48), (24, 56)])
def test_pictures_of_another_size(name, size, tmp_path):
    theirs = write(IMAGE_ENCODERS[name](), tmp_path)
    images = pictures(2, *size)
    more = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        close(load(tmp_path).model(images), theirs(images, **more).last_hidden_state, 1e-4)


@pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
def test_image_classification(kind, tmp_path):
    config = getattr(tf, f"{kind}Config")(**VISION, id2label={0: "cat", 1: "dog", 2: "hat"})
    theirs = write(getattr(tf, f"{kind}ForImageClassification")(config), tmp_path)
    images = pictures()
    with torch.no_grad():
        close(load(tmp_path).model.logits(images), theirs(images).logits)


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForPreTraining"])
def test_bert(head, tmp_path):
    theirs = write(getattr(tf, f"Bert{head}")(tf.BertConfig(**TEXT)), tmp_path)
    ids, pad = tokens(2, 9), torch.ones(2, 9, dtype=torch.bool)
    pad[0, 6:] = False
    trunk = theirs if head == "Model" else theirs.bert
    with torch.no_grad():
        close(load(tmp_path).model(ids, pad)[pad], trunk(ids, attention_mask=pad.long()).last_hidden_state[pad])


def test_oldest_bert_names(tmp_path):
    """Files from before 2020 call a norm's weight gamma and its bias beta."""
    from safetensors.torch import load_file, save_file

    theirs = write(tf.BertModel(tf.BertConfig(**TEXT)), tmp_path)
    file = tmp_path / "model.safetensors"
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in load_file(file).items()
    }
    save_file(old, file)
    with torch.no_grad():
        close(load(tmp_path).model(tokens()), theirs(tokens()).last_hidden_state)


@pytest.mark.parametrize("end", [2, 99])
def test_clip(end, tmp_path):
    text = {**TEXT, "eos_token_id": end, "bos_token_id": 98, "pad_token_id": 1}
    theirs = write(tf.CLIPModel(tf.CLIPConfig(vision_config=VISION, text_config=text, projection_dim=24)), tmp_path)
    ours = load(tmp_path).model
    images, ids = pictures(3), tokens(4, 12)
    ids[:, -4] = 99
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=images)
        close(ours(images, ids), expected.logits_per_image, 1e-4)
        close(torch.nn.functional.normalize(ours.embed_texts(ids), dim=-1), expected.text_embeds)
        close(ours.text(ids), expected.text_model_output.last_hidden_state)


def test_siglip(tmp_path):
    theirs = write(tf.SiglipModel(tf.SiglipConfig(vision_config=VISION, text_config=TEXT)), tmp_path)
    ours = load(tmp_path).model
    images, ids = pictures(3), tokens(4, 40)
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=images)
        close(ours(images, ids), expected.logits_per_image, 1e-4)
        close(ours.text(ids), expected.text_model_output.last_hidden_state)


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_text_tower_alone(kind, tmp_path):
    theirs = write(getattr(tf, f"{kind}TextModel")(getattr(tf, f"{kind}TextConfig")(**TEXT)), tmp_path)
    ours, ids = load(tmp_path).model, tokens(3, 40)
    with torch.no_grad():
        expected = theirs(ids)
        close(ours(ids), expected.last_hidden_state)
        close(ours.pooled(ids), expected.pooler_output)
