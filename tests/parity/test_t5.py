"""BLIP-2 and InstructBLIP over T5: what its encoder finds, logits, generation and what is said, from files."""

from __future__ import annotations

import json

import pytest
import tokenizers
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from tokenizers import models, pre_tokenizers, processors

import panmodal as pm
from panmodal.data.sample import Batch
from panmodal.generate import Sampling, generate
from tests.parity.reference import TEXT, VISION, close, load, pictures, same_when_saved, tokens, write

QFORMER = {**TEXT, "num_hidden_layers": 4, "hidden_size": 36, "intermediate_size": 72}
T5 = dict(
    model_type="t5", vocab_size=100, d_model=48, d_kv=12, d_ff=40, num_layers=3, num_decoder_layers=2, num_heads=3,
    relative_attention_num_buckets=8, relative_attention_max_distance=20, eos_token_id=1, decoder_start_token_id=0,
)  # fmt: skip
CASES = {
    "blip2-t5": dict(T5),
    "blip2-flan-t5": dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "instructblip-flan-t5": dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    """Flan-T5's head is its own in its authors' files; this version of the reference reads but does not write that."""
    kind, folder = "InstructBlip" if request.param.startswith("i") else "Blip2", tmp_path_factory.mktemp(request.param)
    text = CASES[request.param]
    config = getattr(tf, f"{kind}Config")(
        vision_config=VISION, qformer_config=QFORMER, text_config=text, num_query_tokens=5, image_token_index=99
    )
    model = getattr(tf, f"{kind}ForConditionalGeneration")(config)
    theirs = write(model, folder)
    if "flan" in request.param:
        weights = load_file(folder / "model.safetensors")
        weights["language_model.lm_head.weight"] = torch.randn(100, 48)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        told = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**told, "text_config": text}))
        theirs = type(model).from_pretrained(folder).eval()
        assert torch.equal(theirs.language_model.lm_head.weight, weights["language_model.lm_head.weight"])
    return load(folder), theirs


def asked(family, theirs):
    """Two prompts, one shorter, with a picture each; and the vectors that the encoder reads."""
    ids, pad = torch.cat([torch.full((2, 5), 99), tokens(2, 30)], 1), torch.ones(2, 35, dtype=torch.bool)
    images, instructions = pictures(2), None
    batch = {"input_ids": ids, "pixel_values": images, "attention_mask": pad.long()}
    if family.config["model_type"] == "instructblip":
        instructions = Batch(tokens(2, 7), torch.ones(2, 7, dtype=torch.bool))
        batch |= {"qformer_input_ids": instructions.ids, "qformer_attention_mask": instructions.pad.long()}
    with torch.no_grad():
        return batch, family.model.vectors(ids, family.model.encode(images, instructions))


def test_logits(pair):
    family, theirs = pair
    batch, x = asked(family, theirs)
    said = torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens(2, 29)], 1)
    with torch.no_grad():
        expected = theirs(**batch, decoder_input_ids=said)
        source = family.language.source(x)
        close(source.vectors, expected.language_model_outputs.encoder_last_hidden_state, 1e-4)
        close(family.language(said, source=source), expected.logits, 1e-4)


def test_padding_changes_nothing(pair):
    family, theirs = pair
    _, x = asked(family, theirs)
    pad = torch.ones(2, 38, dtype=torch.bool)
    pad[:, :3] = False
    with torch.no_grad():
        padded = family.language.source(torch.cat([torch.randn(2, 3, 48), x], 1), pad)
        said = tokens(2, 6)
        close(family.language(said, source=padded), family.language(said, source=family.language.source(x)), 1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_generation(pair, beams):
    family, theirs = pair
    batch, x = asked(family, theirs)
    begun, first, pad, source = family.language.begin(batch["input_ids"], x)
    ours = generate(family.language, begun, first, Sampling(max_tokens=30, beams=beams), pad=pad, source=source)
    expected = theirs.generate(
        **batch, max_new_tokens=30, min_new_tokens=30, num_beams=beams, do_sample=False, eos_token_id=None
    )
    assert torch.stack(list(ours), 1).tolist() == expected[:, -30:].tolist()


def test_round_trip(pair, tmp_path):
    same_when_saved(*pair, tmp_path)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """With a tokenizer in T5's manner: pieces of words, and an end after each text."""
    folder = tmp_path_factory.mktemp("talker")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0 - i / 50) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyzQA:?.' ")]
    pieces += [("\u2581Question", -4.0), ("\u2581Answer", -4.0), ("\u2581how", -4.0), ("\u2581many", -4.0)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = tokenizers.decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    words = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )  # fmt: skip
    processor = tf.Blip2Processor(tf.BlipImageProcessorPil(size=dict(height=32, width=32)), words, num_query_tokens=5)
    config = tf.Blip2Config(
        vision_config=VISION, qformer_config=QFORMER, text_config=T5, num_query_tokens=5,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    theirs = write(tf.Blip2ForConditionalGeneration(config), folder)
    processor.save_pretrained(folder)
    return pm.load(folder), theirs, processor


QUESTIONS = ["how many cats?", "what is it?", "Why?"]


def test_what_is_said(talker, fixtures):
    """Question and picture as the reference's processor has them, the same words out; alone, as a stream, in a batch."""
    family, theirs, processor = talker
    image = pm.Image(sorted((fixtures / "photos").glob("*.jpg"))[0])
    prompts = [[pm.user(image, text)] for text in QUESTIONS]
    for (said,), text in zip(prompts, QUESTIONS, strict=True):
        batch = processor(image.pixels, f"Question: {text} Answer:", return_tensors="pt")
        assert family.processor.encode([said], reply=True).ids == batch["input_ids"][0].tolist()
        expected = theirs.generate(**batch, max_new_tokens=12, do_sample=False)
        words = processor.batch_decode(expected, skip_special_tokens=True)[0].strip()
        assert family.reply(said, max_tokens=12).text == words
        assert "".join(family.stream(said, max_tokens=12)) == words
    replies = [family.reply(said, max_tokens=12).text for (said,) in prompts]
    assert [reply.text for reply in family.reply_all(prompts, max_tokens=12)] == replies
    assert family.caption_all([image], max_tokens=12) == [family.caption(image, max_tokens=12)]


def test_it_is_not_tuned(talker):
    family, _, _ = talker
    with pytest.raises(pm.InputError, match="reads prompts apart from answers"):
        family.model(tokens(1, 4))
