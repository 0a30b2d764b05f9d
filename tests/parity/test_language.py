from __future__ import annotations

import json

import pytest
import torch
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

import panmodal as pm
from panmodal.checkpoints.language import LANGUAGE_MODELS as LANGUAGE_PARTS
from panmodal.embeddings import Rope
from panmodal.generate import Sampling, generate
from panmodal.visibility import alibi
from tests.parity.reference import LANGUAGE_MODELS, close, load, tokens, write


@pytest.fixture(params=LANGUAGE_MODELS, scope="module")
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write(LANGUAGE_MODELS[request.param](), folder)
    return load(folder).model, theirs


def test_logits(pair):
    ours, theirs = pair
    ids = tokens(2, 12)
    with torch.no_grad():
        close(ours(ids), theirs(ids).logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows(pair, side):
    ours, theirs = pair
    ids = tokens(2, 12)
    pad = torch.ones(2, 12, dtype=torch.bool)
    pad[0, slice(4) if side == "left" else slice(8, None)] = False
    at = (pad.cumsum(1) - 1).clamp(min=0)
    positions = {} if theirs.config.model_type == "opt" else {"position_ids": at}  # OPT counts by itself
    with torch.no_grad():
        expected = theirs(ids, attention_mask=pad.long(), **positions).logits
        close(ours(ids, pad)[pad], expected[pad])
        alone = ours(ids[:1, 4:] if side == "left" else ids[:1, :8])
        close(ours(ids, pad)[:1][pad[:1]], alone[0])


def test_cached_equals_uncached(pair):
    ours, _ = pair
    ids = tokens(2, 12)
    pad = torch.ones(2, 12, dtype=torch.bool)
    pad[1, :3] = False
    for mask in (None, pad):
        cache = ours.make_cache(2, 12)
        with torch.no_grad():
            parts = [ours(ids[:, a:b], None if mask is None else mask[:, :b], cache) for a, b in ((0, 5), (5, 9))]
            parts += [ours(ids[:, i : i + 1], None if mask is None else mask[:, : i + 1], cache) for i in (9, 10, 11)]
            whole = ours(ids, mask)
        real = slice(None) if mask is None else mask
        close(torch.cat(parts, 1)[real], whole[real])


@pytest.mark.parametrize("beams", [1, 3])
def test_generation(pair, beams):
    ours, theirs = pair
    ids = tokens(2, 6)
    sampling = Sampling(max_tokens=32, beams=beams)
    out = list(generate(ours, ids, ours.embed.words(ids), sampling))
    expected = theirs.generate(ids, max_new_tokens=32, num_beams=beams, do_sample=False, pad_token_id=0)
    assert torch.stack(out, 1).tolist() == expected[:, 6:].tolist()


@pytest.mark.parametrize(
    "told",
    [
        {"rotary_pct": 0.5, "rotary_emb_base": 500},  # as published
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500, "partial_rotary_factor": 0.5}},
    ],
)
def test_either_form_of_partial_rotary_positions(told):
    shape = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=9)
    assert LANGUAGE_PARTS["gpt_neox"].build({**shape, **told}).body.config.rope == Rope(500, share=0.5)


@pytest.mark.parametrize(("heads", "steepness"), [(4, 8), (6, 16), (7, 8)])
def test_distances_weigh_as_published(heads, steepness):
    """The reference's function; its model knows of 8 alone. Its numbers differ by one for each row, which softmax
    does not see."""
    expected = build_mpt_alibi_tensor(heads, 9, steepness)  # [H, 1, 9]
    ours = alibi("causal", torch.arange(9)[None], heads, steepness, tokens=3)
    for i, token in enumerate((6, 7, 8)):
        row = slice(token + 1)
        close(ours[0, :, i, row] - ours[0, :, i, :1], expected[:, 0, row] - expected[:, 0, :1])
        assert ours[0, :, i, token + 1 :].eq(-torch.inf).all()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"attn_config": {"qk_ln": True}}, "qk_ln=True; panmodal reads False only"),
        ({"attn_config": {"alibi": False}}, "alibi=False"),
        ({"attn_config": {"clip_qkv": 6}}, "clip_qkv=6"),
        ({"attn_config": {"softmax_scale": 0.1}}, "softmax_scale=0.1"),
        ({"attn_config": {"attn_type": "multiquery_attention"}}, "attn_type='multiquery_attention'"),
        ({"attn_config": {"prefix_lm": True}}, "prefix_lm=True"),
        ({"no_bias": False}, "no_bias=False"),
        ({"logit_scale": 0.5}, "logit_scale=0.5"),
        ({"norm_type": "rmsnorm"}, "norm_type='rmsnorm'"),
    ],
)
def test_an_mpt_that_is_not_read(changed, told):
    with pytest.raises(pm.CheckpointError, match=told):
        LANGUAGE_PARTS["mpt"].build(changed)


def test_a_real_trained_model_goes_on_as_published(fixtures):
    folder = fixtures / "stories260K"
    expected = json.loads((folder / "expected.json").read_text())
    chat = pm.load(folder)
    ids = chat.processor.tokenizer.encode(expected["prompt"])
    assert ids == expected["greedy_120_ids"][: len(ids)]
    prompt = torch.tensor([ids])
    sampling = Sampling(max_tokens=len(expected["greedy_120_ids"]) - len(ids))
    new = [int(t) for t in generate(chat.model, prompt, chat.model.embed.words(prompt), sampling)]
    assert ids + new == expected["greedy_120_ids"]
    text = chat.reply(expected["prompt"], max_tokens=len(new)).text
    assert "<s> " + expected["prompt"] + text == expected["text"]
