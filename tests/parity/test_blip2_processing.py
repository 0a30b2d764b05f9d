"""Checkpoint folders as the reference writes them, tokenizers and all: a picture and words in, the same words out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.pictures import ImageTransform
from panmodal.data.tokens import Tokenizer
from panmodal.generate import Sampling, generate
from tests.parity.reference import TEXT, VISION, close
from tests.parity.reference import write as write_model

SIDE = dict(height=32, width=32)
TEXTS = ["Question: how many cats are there? Answer:", "a photo of", "  it's “odd” — 3.50!"]
QFORMER = {**TEXT, "vocab_size": 30523, "max_position_embeddings": 64}
OPT = dict(
    model_type="opt",
    vocab_size=264,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    ffn_dim=96,
    word_embed_proj_dim=48,
    max_position_embeddings=160,
)
LLAMA = {
    "model_type": "llama",
    **TEXT,
    "vocab_size": 520,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "eos_token_id": 2,
}


def opt_tokenizer(folder: Path):
    """OPT's manner: byte-level pairs (none merged here), and a start token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    letters = [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
    vocab = {word: i for i, word in enumerate(["<pad>", "</s>", *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>", add_bos_token=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **marks}))
    ours = Tokenizer.from_files({p.name: p.read_bytes() for p in folder.iterdir()})
    (folder / "tokenizer.json").write_bytes(ours.to_files()["tokenizer.json"])
    return tf.PreTrainedTokenizerFast.from_pretrained(folder, **{k: v for k, v in marks.items() if k[-6:] == "_token"})


def bert_tokenizer(fixtures: Path):
    return tf.BertTokenizer.from_pretrained(fixtures / "tokenizers/bert_base_uncased")


@pytest.fixture(params=["blip2", "blip2-old", "instructblip"], scope="module")
def pair(request, fixtures, tmp_path_factory):
    """`blip2-old`: the config has no token for pictures, as in the first files."""
    folder = tmp_path_factory.mktemp(request.param)
    images = tf.BlipImageProcessorPil(size=SIDE)
    if request.param == "instructblip":
        tokenizer = tf.AutoTokenizer.from_pretrained(fixtures / "stories260K")
        processor = tf.InstructBlipProcessor(images, tokenizer, bert_tokenizer(fixtures), num_query_tokens=5)
        kind, text, token = "InstructBlip", LLAMA, len(tokenizer) - 1
    else:
        tokenizer = opt_tokenizer(folder)
        text = {**OPT, "eos_token_id": tokenizer.convert_tokens_to_ids("Ċ")}
        processor = tf.Blip2Processor(images, tokenizer, num_query_tokens=5)
        kind, token = "Blip2", len(tokenizer) - 1
    config = getattr(tf, f"{kind}Config")(
        vision_config=VISION, qformer_config=QFORMER, text_config=text, num_query_tokens=5, image_token_index=token
    )
    theirs = write_model(getattr(tf, f"{kind}ForConditionalGeneration")(config), folder)
    processor.save_pretrained(folder)
    if request.param == "blip2-old":
        old = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**old, "image_token_index": None}))
        opt_tokenizer(folder)  # the one without a token for pictures
    return pm.load(folder), theirs, processor


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt(pair, fixtures, text):
    family, theirs, processor = pair
    photo = sorted((fixtures / "photos").glob("*.jpg"))[7]
    batch = processor(images=Pil.open(photo).convert("RGB"), text=text, return_tensors="pt")
    asked = [family.processor.encode([pm.user(pm.Image(photo), text)], reply=True)]
    ours = family.processor.batch(asked)
    assert ours.ids.tolist() == batch["input_ids"].tolist()
    assert (ours.images - batch["pixel_values"]).abs().max() < 1e-3
    if "qformer_input_ids" in batch:
        assert ours.instructions.ids.tolist() == batch["qformer_input_ids"].tolist()
    with torch.no_grad():
        found = family.model(ours.ids, ours.images, instructions=ours.instructions)
        close(found, theirs(**batch).logits, 1e-4)
        x = family.vectors(ours.ids, family.encode_images(asked[0].images))
    said = [int(token) for token in generate(family.language, ours.ids, x, Sampling(max_tokens=32), family._ends)]
    assert said == theirs.generate(**batch, max_new_tokens=32, do_sample=False)[0, ours.ids.shape[1] :].tolist()


def test_a_caption_without_a_prompt(pair, fixtures):
    family, _, processor = pair
    photo = sorted((fixtures / "photos").glob("*.jpg"))[3]
    batch = processor(images=Pil.open(photo).convert("RGB"), text="", return_tensors="pt")
    ours = family.processor.encode([pm.user(pm.Image(photo))], reply=True)
    assert ours.ids == batch["input_ids"][0].tolist()


def test_a_question_is_put_as_the_authors_do(pair):
    family, _, _ = pair
    text = family.processor.template.render([pm.user("how many cats?"), pm.assistant("two"), pm.user("and dogs?")])
    if family.config["model_type"] == "instructblip":
        assert text == "<s>how many cats? two</s> and dogs?"
    else:
        assert text == "</s>Question: how many cats? Answer: two\n Question: and dogs? Answer:"


@pytest.mark.parametrize("size", [(31, 17), (500, 20), (97, 1024), (1, 1)])
def test_odd_sizes(size, tmp_path):
    theirs = tf.BlipImageProcessorPil()
    theirs.save_pretrained(tmp_path)
    ours = ImageTransform.from_config(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    picture = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    assert (ours([picture]) - theirs(picture, return_tensors="pt")["pixel_values"]).abs().max() < 1e-3
    assert ImageTransform.from_config({"image_processor_type": "BlipImageProcessor"}) == ours


def test_retrieval(fixtures, tmp_path):
    """A photograph and texts in: the same likeness and the same matches out."""
    settings = dict(num_query_tokens=5, image_text_hidden_size=24)
    config = tf.Blip2Config(vision_config=VISION, qformer_config=dict(QFORMER, use_qformer_text_input=True), **settings)
    theirs = write_model(tf.Blip2ForImageTextRetrieval(config), tmp_path)
    processor = tf.Blip2Processor(tf.BlipImageProcessorPil(size=SIDE), bert_tokenizer(fixtures))
    processor.save_pretrained(tmp_path)
    family = pm.load(tmp_path)
    photo, texts = sorted((fixtures / "photos").glob("*.jpg"))[0], ["a photo of a cat", "two long boats near a bridge"]
    batch = processor(images=[Pil.open(photo).convert("RGB")] * 2, text=texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        alike = theirs(**batch)
        fits = theirs(**batch, use_image_text_matching_head=True).logits_per_image.softmax(-1)[:, 1]
    assert (family.similarity([pm.Image(photo)], texts) - alike.logits_per_image[:1]).abs().max() < 1e-4
    assert family.match(pm.Image(photo), texts) == pytest.approx(fits.tolist(), abs=1e-4)
    assert (family.embed([texts[1], pm.Image(photo)])[0] - alike.text_embeds[1]).abs().max() < 1e-4
