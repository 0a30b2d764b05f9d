"""tiny/flamingo's recipe: that it runs, and what each of its stages learns."""

from __future__ import annotations

from pathlib import Path

import torch

import panmodal as pm
from panmodal.families import LanguageChat
from panmodal.playground.new_words import new_words_sample, tokenizer
from panmodal.training import read_recipe, run_recipe
from panmodal.training.stages import OBJECTIVES
from tests.families.small import SPOKEN

RECIPE = Path(__file__).parents[2] / "recipes" / "tiny" / "flamingo.toml"


def test_the_recipe_runs(tmp_path):
    small = [f"stages.{i}.{key}={value}" for i in range(4) for key, value in (("steps", 2), ("batch", 1))]
    family = run_recipe(read_recipe(RECIPE, [f"out={tmp_path}", *small]), quiet=True)
    text, pictures, _, last = (pm.load(tmp_path / "stages" / stage.name) for stage in read_recipe(RECIPE).stages)
    clip = pm.load("tiny/clip").model.image
    for name, weight in clip.body.named_parameters():
        assert torch.equal(last.model.encoder.body.get_parameter(name), weight.half().float())  # frozen all along
    assert not any(text.model.get_parameter(f"gates.{i}.attn_gate").any() for i in range(4))
    assert all(pictures.model.get_parameter(f"gates.{i}.attn_gate").any() for i in range(4))
    asked = [pm.user(new_words_sample(0).images[0], "this is")]
    assert last.reply(asked, max_tokens=4).text == pm.load(tmp_path / "model").reply(asked, max_tokens=4).text
    assert family.processor.tokenizer.size == 369


def test_answers_alone_are_learned_from():
    language = LanguageChat.fresh({"model_type": "llama", **SPOKEN, "vocab_size": 369}, tokenizer().to_files())
    family = pm.flamingo(pm.load("tiny/clip"), language, latents=2, depth=1)
    encoded = OBJECTIVES["answers"].encode(family.processor, new_words_sample(3))
    words = family.processor.tokenizer
    learned = [token for token, learn in zip(encoded.ids, encoded.learned, strict=True) if learn]
    assert encoded.ids.count(family.model.image_token) == len(encoded.images) == 13
    assert len(learned) == 9 * len(words.encode("this is a dax wug.<|endofchunk|>", special=False))
    assert learned.count(words.id_of("<|endofchunk|>")) == 9
