"""BLIP-2 and InstructBLIP: the Q-Former's hidden states, logits, similarity and matching, generation, from files."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

from panmodal.cache import Source
from panmodal.data.sample import Batch
from panmodal.generate import Sampling, generate
from tests.parity.reference import TEXT, VISION, close, load, pictures, same_when_saved, tokens, write

LM = {**TEXT, "hidden_size": 64, "num_key_value_heads": 2, "eos_token_id": None, "max_position_embeddings": 128}
OPT = {**TEXT, "ffn_dim": 96, "word_embed_proj_dim": 48, "max_position_embeddings": 128, "eos_token_id": None}
QFORMER = {**TEXT, "num_hidden_layers": 4, "hidden_size": 36, "intermediate_size": 72}
CASES = {
    "blip2-opt": dict(text_config={"model_type": "opt", **OPT}),
    "blip2-opt-untied": dict(text_config={"model_type": "opt", **OPT, "tie_word_embeddings": False}),
    "blip2-llama": dict(text_config={"model_type": "llama", **LM}, vision_config=dict(VISION, qkv_bias=False)),
    "blip2-every-3": dict(
        text_config={"model_type": "opt", **OPT}, qformer_config=dict(QFORMER, cross_attention_frequency=3)
    ),
    "instructblip-vicuna": dict(text_config={"model_type": "llama", **LM}),
    "instructblip-opt": dict(text_config={"model_type": "opt", **OPT}, qformer_config=dict(QFORMER, vocab_size=95)),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    name = request.param
    kind = "InstructBlip" if name.startswith("instruct") else "Blip2"
    settings = {"vision_config": VISION, "qformer_config": QFORMER, **CASES[name]}
    config = getattr(tf, f"{kind}Config")(num_query_tokens=5, image_token_index=99, **settings)
    folder = tmp_path_factory.mktemp(name)
    theirs = write(getattr(tf, f"{kind}ForConditionalGeneration")(config), folder)
    return load(folder), theirs


def asked(family, theirs, rows):
    """A prompt with a picture before its words, the pictures, and for InstructBLIP what its Q-Former reads."""
    ids = torch.cat([torch.full((rows, 5), 99), tokens(rows, 4)], 1)
    batch = {"input_ids": ids, "pixel_values": pictures(rows), "attention_mask": torch.ones_like(ids)}
    instructions = None
    if family.config["model_type"] == "instructblip":
        read, pad = tokens(rows, 7), torch.ones(rows, 7, dtype=torch.bool)
        pad[0, 4:] = False
        batch |= {"qformer_input_ids": read, "qformer_attention_mask": pad.long()}
        instructions = Batch(read, pad)
    return batch, instructions


def test_hidden_states_of_the_queries(pair):
    family, theirs = pair
    batch, instructions = asked(family, theirs, 2)
    with torch.no_grad():
        seen = theirs.vision_model(batch["pixel_values"]).last_hidden_state
        close(family.model.encoder(batch["pixel_values"]), seen)
        queries = theirs.query_tokens.expand(2, -1, -1)
        if instructions is None:
            expected = theirs.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
            close(family.model.qformer(Source(seen)), expected)
        else:
            real = torch.cat([torch.ones(2, 5, dtype=torch.bool), instructions.pad], 1)
            expected = theirs.qformer(
                input_ids=instructions.ids,
                attention_mask=real.long(),
                query_embeds=queries,
                encoder_hidden_states=seen,
            ).last_hidden_state
            found = family.model.qformer(Source(seen), instructions.ids, instructions.pad)
            close(found[real], expected[real])


def test_logits(pair):
    family, theirs = pair
    batch, instructions = asked(family, theirs, 3)
    with torch.no_grad():
        found = family.model(batch["input_ids"], batch["pixel_values"], instructions=instructions)
        close(found, theirs(**batch).logits, 1e-4)


def test_pictures_of_another_size(pair):
    family, theirs = pair
    batch, instructions = asked(family, theirs, 2)
    batch["pixel_values"] = pictures(2, 48, 24)
    with torch.no_grad():
        found = family.model(batch["input_ids"], batch["pixel_values"], instructions=instructions)
        close(found, theirs(**batch, interpolate_pos_encoding=True).logits, 1e-4)


def test_generation(pair):
    family, theirs = pair
    batch, instructions = asked(family, theirs, 2)
    ids = batch["input_ids"]
    with torch.no_grad():
        x = family.model.vectors(ids, family.model.encode(batch["pixel_values"], instructions))
    ours = torch.stack(list(generate(family.language, ids, x, Sampling(max_tokens=32))), 1)
    expected = theirs.generate(**batch, max_new_tokens=32, min_new_tokens=32, do_sample=False, pad_token_id=0)
    assert ours.tolist() == expected[:, -32:].tolist()


def test_round_trip(pair, tmp_path):
    same_when_saved(*pair, tmp_path)


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrieval")
    config = tf.Blip2Config(
        vision_config=VISION,
        qformer_config=dict(QFORMER, use_qformer_text_input=True),
        num_query_tokens=5,
        image_text_hidden_size=24,
    )
    theirs = write(tf.Blip2ForImageTextRetrieval(config), folder)
    return load(folder), theirs


def test_similarity_and_matching(retrieval):
    family, theirs = retrieval
    images, ids, pad = pictures(3), tokens(3, 7), torch.ones(3, 7, dtype=torch.bool)
    pad[1, 4:] = False
    batch = {"pixel_values": images, "input_ids": ids, "attention_mask": pad.long()}
    with torch.no_grad():
        expected = theirs(**batch)
        close(family.model.embed_images(images), expected.image_embeds)
        close(family.model.embed_texts(ids, pad), expected.text_embeds)
        close(family.model(images, ids, pad), expected.logits_per_image)
        expected = theirs(**batch, use_image_text_matching_head=True).logits_per_image
        close(family.model.match(Source(family.model.encoder(images)), ids, pad), expected, 1e-4)
