"""BLIP's four published architectures, through files."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from PIL import Image as Pil

import panmodal as pm
from panmodal.cache import Source
from panmodal.data.sample import Batch
from panmodal.generate import Sampling, generate
from panmodal.training.stages import OBJECTIVES
from tests.parity.reference import TEXT, VISION, close, load, pictures, tokens, write

WORDS = {**TEXT, "bos_token_id": 98, "sep_token_id": 99, "pad_token_id": 0}


def pair(kind, folder, vision=VISION, text=WORDS, **more):
    config = tf.BlipConfig(vision_config=vision, text_config=text, **more)
    theirs = write(getattr(tf, f"Blip{kind}")(config), folder)
    return load(folder), theirs


def padded():
    ids, pad = tokens(3, 9), torch.ones(3, 9, dtype=torch.bool)
    pad[0, 6:] = False
    return ids, pad


UNTIED = dict(text={**WORDS, "tie_word_embeddings": False}, tie_word_embeddings=False)
WIDE = dict(vision={**VISION, "hidden_size": 64, "image_size": 48}, text={**WORDS, "num_hidden_layers": 2})


@pytest.mark.parametrize("shape", [{}, WIDE, UNTIED], ids=["even", "wide", "untied"])
def test_captioning(shape, tmp_path):
    family, theirs = pair("ForConditionalGeneration", tmp_path, **shape)
    model, (ids, pad), size = family.model, padded(), shape.get("vision", VISION)["image_size"]
    images = pictures(3, size, size)
    with torch.no_grad():
        expected = theirs(pixel_values=images, input_ids=ids, attention_mask=pad.long())
        seen = model.image(images)
        close(seen, expected.last_hidden_state)
        close(model.decoder(ids, pad, source=Source(seen))[pad], expected.logits[pad], 1e-4)


def test_pictures_of_another_size(tmp_path):
    family, theirs = pair("ForConditionalGeneration", tmp_path)
    images = pictures(2, 48, 56)
    with torch.no_grad():
        expected = theirs.vision_model(images, interpolate_pos_encoding=True).last_hidden_state
        close(family.model.image(images), expected, 1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("prompt", [1, 4])
def test_captions_are_generated_alike(beams, prompt, tmp_path):
    family, theirs = pair("ForConditionalGeneration", tmp_path)
    model, images = family.model, pictures(3)
    ids = tokens(3, prompt)
    ids[:, 0] = model.start
    with torch.no_grad():
        source, x = Source(model.image(images)), model.decoder.embed.words(ids)
    ours = generate(model.decoder, ids, x, Sampling(max_tokens=32, beams=beams), source=source)
    # The reference drops the last token of a prompt, which its tokenizer has ended, and stops at one that never comes.
    theirs.config.text_config.sep_token_id = None
    ended = torch.cat([ids, ids[:, :1]], 1)
    expected = theirs.generate(images, ended, max_new_tokens=32, num_beams=beams, do_sample=False)
    assert torch.stack(list(ours), 1).tolist() == expected[:, prompt:].tolist()


def test_question_answering(tmp_path):
    family, theirs = pair("ForQuestionAnswering", tmp_path)
    model, images, (ids, pad) = family.model, pictures(3), padded()
    answers = tokens(3, 5)
    with torch.no_grad():
        asked = model.read(Source(model.image(images)), ids, pad)
        seen = theirs.vision_model(images).last_hidden_state
        states = theirs.text_encoder(ids, attention_mask=pad.long(), encoder_hidden_states=seen).last_hidden_state
        close(asked.vectors[pad], states[pad])
        ours = model.decoder(answers, source=asked)
        for row in range(3):  # one at a time, for the reference's decoder looks at the padding of questions, too
            question = states[row : row + 1, pad[row]]
            told = theirs.text_decoder(answers[row : row + 1], encoder_hidden_states=question, is_decoder=True)
            close(ours[row : row + 1], told.logits, 1e-4)


def test_the_loss_of_answers(tmp_path):
    family, theirs = pair("ForQuestionAnswering", tmp_path)
    images, questions = pictures(2), tokens(3, 7)
    answers, long = tokens(3, 5), torch.tensor([5, 3, 4])
    answers[:, 0], pad = family.model.start, torch.arange(5) < long[:, None]
    about = torch.tensor([[number, 0.0, 0.0, 1.0, 1.0] for number in (0, 0, 1)])
    batch = Batch(answers, pad, images=images, regions=about, instructions=Batch(questions))
    labels = answers.masked_fill(~pad, -100)
    theirs.eval()
    with torch.no_grad():
        ours = OBJECTIVES["vqa"].loss(family.model, batch)
        expected = theirs(questions, images[[0, 0, 1]], decoder_input_ids=answers, labels=labels).loss
    close(ours, expected)


def test_answers_are_generated_alike(tmp_path):
    family, theirs = pair("ForQuestionAnswering", tmp_path)
    model, images, ids = family.model, pictures(3), tokens(3, 7)
    start = torch.full((3, 1), model.start)
    with torch.no_grad():
        asked, x = model.read(Source(model.image(images)), ids), model.decoder.embed.words(start)
    ours = generate(model.decoder, start, x, Sampling(max_tokens=32), source=asked)
    theirs.config.text_config.sep_token_id = None
    expected = theirs.generate(ids, images, max_new_tokens=32, do_sample=False)
    assert torch.stack(list(ours), 1).tolist() == expected[:, 1:].tolist()


def test_retrieval(tmp_path):
    family, theirs = pair("ForImageTextRetrieval", tmp_path, image_text_hidden_size=24)
    model, images, (ids, pad) = family.model, pictures(3), padded()
    with torch.no_grad():
        fits = theirs(ids, images, attention_mask=pad.long()).itm_score
        close(model.match(Source(model.image(images)), ids, pad), fits)
        first = theirs(ids[:1, :6], images[:1]).itm_score
        close(model.match(Source(model.image(images[:1])), ids, pad)[:1], first)  # one picture, several texts
        cosines = theirs(ids, images, attention_mask=pad.long(), use_itm_head=False).itm_score
        normalise = torch.nn.functional.normalize
        ours = normalise(model.embed_images(images), dim=-1) @ normalise(model.embed_texts(ids, pad), dim=-1).T
        close(ours, cosines)


def test_first_generation(tmp_path):
    family, theirs = pair("Model", tmp_path, projection_dim=24)
    model, images, (ids, pad) = family.model, pictures(3), padded()
    with torch.no_grad():
        expected = theirs(ids, images, attention_mask=pad.long()).logits_per_image
        close(model.logits(model.embed_images(images), model.embed_texts(ids, pad)), expected, 1e-4)


@pytest.mark.parametrize("kind", ["ForConditionalGeneration", "ForQuestionAnswering", "ForImageTextRetrieval", "Model"])
@pytest.mark.parametrize("tied", [True, False])
def test_saved_as_it_came(kind, tied, tmp_path):
    from safetensors.torch import load_file

    family, _ = pair(kind, tmp_path / "a", **({} if tied else UNTIED))
    family.save(tmp_path / "b")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    again = getattr(tf, f"Blip{kind}").from_pretrained(tmp_path / "b", output_loading_info=True)[1]
    assert not again["missing_keys"] and not again["unexpected_keys"]


def test_files_that_hold_tied_tensors_twice(tmp_path):
    """As the published ones do."""
    from safetensors.torch import load_file, save_file

    family, _ = pair("ForConditionalGeneration", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    head, words = "text_decoder.cls.predictions.", "text_decoder.bert.embeddings."
    weights[f"{head}decoder.weight"] = weights[f"{words}word_embeddings.weight"].clone()
    weights[f"{head}decoder.bias"] = weights[f"{head}bias"].clone()
    weights[f"{words}position_ids"] = torch.arange(40)[None]
    save_file(weights, file)
    again = load(tmp_path).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), family.model.parameters(), strict=True))


@pytest.fixture
def processor(fixtures, tmp_path):
    """BLIP's: BERT's words, and one more to begin what is said."""
    vocab = (fixtures / "tokenizers/bert_base_uncased/vocab.txt").read_text("utf-8")
    (tmp_path / "vocab.txt").write_text(vocab, "utf-8")
    tokenizer = tf.BertTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    pictures = tf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    made = tf.BlipProcessor(pictures, tokenizer)
    made.save_pretrained(tmp_path)
    return made


REAL = {**TEXT, "vocab_size": 30524, "bos_token_id": 30522, "sep_token_id": 102}


def test_photographs_and_words(processor, fixtures, tmp_path):
    """Folders as the reference writes them: photographs and texts in, the same words and probabilities out."""
    photos = sorted((fixtures / "photos").glob("*.jpg"))[:3]
    opened = [Pil.open(photo).convert("RGB") for photo in photos]
    family, theirs = pair("ForConditionalGeneration", tmp_path, text=REAL)
    for prompt in ("", "a photograph of"):
        batch = processor(opened, [prompt] * 3 if prompt else None, return_tensors="pt")
        said = theirs.generate(**batch, max_new_tokens=12, do_sample=False, num_beams=1)
        expected = processor.batch_decode(said, skip_special_tokens=True)
        assert family.caption_all([pm.Image(photo) for photo in photos], prompt, max_tokens=12) == expected
    family, theirs = pair("ForImageTextRetrieval", tmp_path, text=REAL)
    texts = ["two long boats near a bridge", "a cat"]
    for photo, picture in zip(photos, opened, strict=True):
        batch = processor([picture] * 2, texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            fits = theirs(**batch).itm_score.softmax(-1)[:, 1]
            cosines = theirs(**batch, use_itm_head=False).itm_score[0]
        assert family.match(pm.Image(photo), texts) == pytest.approx(fits.tolist(), abs=1e-4)
        ours = family.embed([pm.Image(photo), *texts])
        close(ours[1:] @ ours[0], cosines, 1e-4)
    family, theirs = pair("ForQuestionAnswering", tmp_path, text=REAL)
    batch = processor(opened[0], "what is on the water?", return_tensors="pt")
    expected = processor.decode(theirs.generate(**batch, max_new_tokens=8)[0], skip_special_tokens=True)
    asked = pm.Image(photos[0]), "what is on the water?"
    assert family.answer(*asked, max_tokens=8) == expected
    assert family.reply(pm.user(*asked), max_tokens=8).text == expected
