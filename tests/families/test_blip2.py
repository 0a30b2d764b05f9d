"""BLIP-2, InstructBLIP and MiniGPT-4: what is theirs alone; what all families share is in test_every_family."""

from __future__ import annotations

import json

import pytest
import torch

import panmodal as pm
from panmodal.families import bootstrap, minigpt4
from panmodal.families.blip2 import Blip2Chat
from tests.families.small import small
from tests.families.test_every_family import scene_picture


@pytest.fixture
def folder(tmp_path):
    small("blip2").save(tmp_path / "blip2")
    return tmp_path / "blip2"


def projection(file, dim=32, **more):
    weights = {"llama_proj.weight": torch.randn(32, dim), "llama_proj.bias": torch.randn(32), **more}
    torch.save({"model": weights, "epoch": 3}, file)
    return weights


def test_minigpt4_from_its_parts(folder, tmp_path):
    weights = projection(tmp_path / "minigpt4.pth")
    family = minigpt4(folder, small("llama"), tmp_path / "minigpt4.pth", allow_pickle=True)
    assert torch.equal(family.model.connector.project.weight, weights["llama_proj.weight"])
    assert torch.equal(family.model.qformer.queries, pm.load(folder).model.qformer.queries)
    asked = [
        pm.user(scene_picture(0), scene_picture(1), "which of these has a star?"),
        pm.assistant("this"),
        pm.user("?"),
    ]
    assert family.processor.template.render(asked, reply=True) == (
        "###Human: <Img><ImageHere></Img> <Img><ImageHere></Img> which of these has a star? "
        "###Assistant: this###Human: ? ###Assistant:"
    )
    family.save(tmp_path / "whole")
    again = pm.load(tmp_path / "whole")
    assert again.reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)
    assert again.caption(scene_picture(2), max_tokens=8) == family.caption(scene_picture(2), max_tokens=8)


def test_minigpt4_is_a_blip2_for_the_reference(folder, tmp_path):
    import transformers as tf

    family = minigpt4(folder, small("llama"))
    family.save(tmp_path / "whole")
    theirs, told = tf.Blip2ForConditionalGeneration.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    asked = [family.processor.encode([pm.user(scene_picture(0), scene_picture(1), "what?")], reply=True)]
    batch = family.processor.batch(asked)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=batch.ids, pixel_values=batch.images).logits
        torch.testing.assert_close(family.model(batch.ids, batch.images), expected, rtol=0, atol=1e-4)


def test_a_projection_that_is_none(folder, tmp_path):
    file = tmp_path / "minigpt4.pth"
    projection(file)
    with pytest.raises(pm.CheckpointError, match="is a pickle, which can carry code.*allow_pickle=True"):
        minigpt4(folder, small("llama"), file)
    projection(file, dim=48)
    with pytest.raises(pm.CheckpointError, match=r"'llama_proj.weight' is \[32, 48\], config.json makes it \[32, 32\]"):
        minigpt4(folder, small("llama"), file, allow_pickle=True)
    projection(file, **{"lora.weight": torch.ones(1)})
    with pytest.raises(pm.CheckpointError, match="unknown tensor 'lora.weight'"):
        minigpt4(folder, small("llama"), file, allow_pickle=True)
    torch.save({"weights": {}}, file)
    with pytest.raises(pm.CheckpointError, match="has no 'model'"):
        minigpt4(folder, small("llama"), file, allow_pickle=True)
    small("clip").save(tmp_path / "clip")
    with pytest.raises(pm.InputError, match="model_type 'clip'; vision must be a BLIP-2"):
        minigpt4(tmp_path / "clip", small("llama"))


def test_the_second_stage_takes_over_the_first(tmp_path):
    """From the Q-Former that told pairs apart to one before a language model."""
    first = small("blip2-itm")
    first.save(tmp_path)
    family = bootstrap(tmp_path, small("opt"))
    assert isinstance(family, Blip2Chat)
    known = first.model.qformer.state_dict()
    assert all(torch.equal(tensor, known[name]) for name, tensor in family.model.qformer.state_dict().items())
    assert family.caption(scene_picture(0), max_tokens=3)


def test_a_longt5_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "longt5"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        pm.CheckpointError,
        match="model_type 'longt5'; panmodal reads gpt2, gpt_neox, llama, mistral, mpt, opt",
    ):
        pm.load(folder)


@pytest.mark.parametrize("name", ["blip2", "instructblip", "minigpt4"])
def test_places_and_pictures_are_counted(name):
    family = small(name)
    encoded = family.processor.encode([pm.user(scene_picture(0), scene_picture(1), "what?")], reply=True)
    batch = family.processor.batch([encoded])
    with pytest.raises(pm.InputError, match="12 places for media vectors and the media have 6 vectors"):
        family.vectors(batch.ids, family.encode_images(encoded.images[:1]))
    word = family.processor.template.image
    with pytest.raises(pm.InputError, match="1 pictures and its text 2 placeholders"):
        family.processor.encode([pm.user(scene_picture(0), f"what is {word}?")], reply=True)


def test_instructblip_looks_by_the_words():
    """One picture, two questions: other vectors; one question asked again: the same ones, not made anew."""
    family = small("instructblip", std=0.4)
    encode = lambda text: family.processor.encode([pm.user(scene_picture(0), text)], reply=True).images  # noqa: E731
    first, second, again = (family.encode_images(encode(t)) for t in ("how many?", "what colour?", "how many?"))
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    assert encode("how many?")[0].key == encode("how many?")[0].key != encode("what colour?")[0].key
    with pytest.raises(pm.InputError, match="a text has .* tokens and the model reads 96"):
        family.reply([pm.user(scene_picture(0), "red " * 120)])


def test_match_and_similarity():
    family = small("blip2-itm")
    texts = ["a red circle", "two blue stars"]
    odds = family.match(scene_picture(0), texts)
    assert all(0 <= share <= 1 for share in odds)
    assert family.match(scene_picture(0), texts, rows=1) == pytest.approx(odds, abs=1e-5)
    assert family.similarity([scene_picture(0), scene_picture(1)], texts).shape == (2, 2)


def test_captions_of_many_pictures():
    family = small("blip2", std=0.4)
    shown = [scene_picture(seed) for seed in range(3)]
    for prompt in ("", "a picture of"):
        assert family.caption_all(shown, prompt, rows=2, max_tokens=8) == [
            family.caption(picture, prompt, max_tokens=8) for picture in shown
        ]


@pytest.mark.parametrize("name", ["blip2", "instructblip", "blip2-itm"])
def test_saves_and_loads(name, tmp_path):
    family = small(name)
    family.save(tmp_path)
    again = pm.load(tmp_path)
    assert type(again) is type(family)
    if name == "blip2-itm":
        assert again.match(scene_picture(0), ["a star"]) == family.match(scene_picture(0), ["a star"])
    else:
        asked = [pm.user(scene_picture(0), "how many?"), pm.assistant("two"), pm.user(scene_picture(1), "and here?")]
        assert again.reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)
