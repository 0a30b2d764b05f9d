from __future__ import annotations

import json

import pytest
import torch

import panmodal as pm
from panmodal.generate import Sampling, generate
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
