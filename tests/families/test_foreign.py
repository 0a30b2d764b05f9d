"""Language models of the reference library in the place of the core's: logits, cache, padding, generation, composed."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf

import panmodal as pm
from panmodal.foreign import ForeignLanguage
from panmodal.lora import adapters
from panmodal.playground import make_scene, render
from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer
from tests.families.small import small
from tests.parity.reference import close, tokens, write

SIZES = dict(
    vocab_size=344,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=2,
    eos_token_id=3,
)
CASES = {
    "gemma2": dict(head_dim=8, sliding_window=64, final_logit_softcapping=2.0),
    "cohere": dict(logit_scale=0.3),
    "granite": dict(logits_scaling=3.0, embedding_multiplier=2.0),
    "phi3": dict(),
    "olmo2": dict(tie_word_embeddings=True),
}


@pytest.fixture(params=CASES, scope="module")
def pair(request, tmp_path_factory):
    config = tf.AutoConfig.for_model(request.param, **SIZES, **CASES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write(tf.AutoModelForCausalLM.from_config(config), folder)
    for name, content in {**tokenizer().to_files(), "chat_template.jinja": CHAT_TEMPLATE.encode()}.items():
        (folder / name).write_bytes(content)
    return pm.load(folder), theirs


@torch.no_grad()
def test_logits_are_the_references(pair):
    ours, theirs = pair
    ids = tokens(2, 9)
    assert isinstance(ours.model, ForeignLanguage)
    close(ours.model(ids), theirs(ids).logits)


@torch.no_grad()
def test_cached_and_padded(pair):
    ours, _ = pair
    ids = tokens(1, 9)
    whole = ours.model(ids)
    cache = ours.model.make_cache(1, 9)
    close(torch.cat([ours.model(ids[:, :4], cache=cache), ours.model(ids[:, 4:], cache=cache)], 1), whole)
    cache.resize(9, 4)
    close(ours.model(ids[:, 4:], cache=cache), whole[:, 4:])
    for left in (True, False):
        padded = torch.nn.functional.pad(ids, (3, 0) if left else (0, 3))
        found = ours.model(padded, pad=torch.nn.functional.pad(torch.ones_like(ids).bool(), (3, 0) if left else (0, 3)))
        close(found[:, 3:] if left else found[:, :9], whole)


@torch.no_grad()
def test_texts_packed_apart_do_not_see_each_other(pair):
    ours, _ = pair
    shared, first, second = tokens(1, 3), tokens(1, 4) + 100, tokens(1, 5) + 200
    packed = ours.model(torch.cat([shared, first, second], 1), pad=torch.tensor([[1] * 3 + [2] * 4 + [3] * 5]))
    close(packed[:, 7:], ours.model(torch.cat([shared, second], 1))[:, 3:])


def test_it_answers_as_the_reference_does_and_remembers(pair):
    ours, theirs = pair
    asked = "how many red circles are there?"
    ids = torch.tensor([ours.processor.encode([pm.user(asked)], reply=True).ids])
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    said = ours.reply(asked, max_tokens=16).text
    found = [token for token in expected[0, ids.shape[1] :].tolist() if token != 3]
    assert said == ours.processor.tokenizer.decode(found).lstrip()
    assert ours.reply(asked, max_tokens=16).text == said  # from what is remembered
    assert ours.reply_all([[pm.user("hello")], [pm.user(asked)]], max_tokens=16)[1].text == said
    assert ours.reply(asked, max_tokens=16, beams=3).text


def test_it_is_saved_as_the_reference_reads_it(pair, tmp_path):
    ours, theirs = pair
    ours.save(tmp_path)
    again, told = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in theirs.state_dict().items())


def test_it_is_composed_and_trained(pair, tmp_path):
    family = pm.compose(small("clip"), "mlp", pair[0])
    asked = [pm.user(pm.Image(render(make_scene(0), 32)), "how many red circles are there?")]
    family.save(tmp_path)
    again = pm.load(tmp_path)
    assert again.reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)
    batch = family.processor.batch([family.processor.encode([*asked, pm.assistant("2")])])
    family.model.requires_grad_(True)
    family.model.read(batch).sum().backward()
    assert all(p.grad is not None for p in family.model.connector.parameters())


def test_adapters_go_on_its_linear_maps(pair, tmp_path):
    family = pm.load(pair[0].name).adapt(rank=2)
    for adapter in adapters(family.model).values():
        adapter.lora_b.data.normal_(std=0.1)
    assert len(adapters(family.model)) >= 2 * 4 and not hasattr(family.model.model.get_output_embeddings(), "lora_a")
    ids = tokens(2, 9)
    with torch.no_grad():
        expected = family.model(ids)
        assert (expected - pair[0].model(ids)).abs().max() > 1e-3
        family.save(tmp_path)
        close(pm.load(pair[0].name, adapter=tmp_path).model(ids), expected)


def test_what_nothing_reads_is_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "quen2", "architectures": ["QuenForCausalLM"]}))
    with pytest.raises(pm.CheckpointError, match="does not read model_type 'quen2'; did you mean 'qwen2'"):
        pm.load(tmp_path)
