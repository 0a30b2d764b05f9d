"""Visual contrastive decoding, beside the formula written out: no cache, no batch, the whole model again each token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import panmodal as pm
from panmodal.data.noise import in_noise
from panmodal.generate import Sampling, contrasted
from panmodal.language import logits_of
from panmodal.playground import make_scene, render
from tests.families.small import SEERS, small

ALPHA, BETA, STEPS = 1.5, 0.05, 700


def shown(seed):
    return pm.Image(render(make_scene(seed)))


def ask(seed, text):
    return [pm.user(shown(seed), text)]


def bare(texts):
    """Without spaces, which a stream may set otherwise"""
    return ["".join(text.split()) for text in texts]


def diffused(pixels, steps):
    """As the authors have it: a sigmoid of variances, and what is left of the picture after some of them."""
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, 1000))) * (5e-3 - 1e-5) + 1e-5
    left = np.prod(1 - betas[: steps + 1])
    drawn = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(0))
    return left**0.5 * pixels + (1 - left) ** 0.5 * drawn


@torch.no_grad()
def written_out(family, conversation, tokens):
    """The likeliest token, again and again."""
    encoded = family.processor.encode(conversation, reply=True)
    said = []
    for _ in range(tokens):
        longer = replace(encoded, ids=[*encoded.ids, *said], learned=[False] * (len(encoded.ids) + len(said)))
        batch = family.processor.batch([longer])
        clear, noisy = (
            logits_of(family.model)(family.model.read(replace(batch, images=pixels)))[0, -1]
            for pixels in (batch.images, diffused(batch.images, STEPS))
        )
        best = (1 + ALPHA) * clear - ALPHA * noisy
        best[clear.softmax(-1) < BETA * clear.softmax(-1).max()] = -torch.inf
        said.append(int(best.argmax()))
        if said[-1] in family._ends:
            break
    return family.processor.tokenizer.decode([token for token in said if token not in family._ends])


@pytest.mark.parametrize("name", SEERS)
def test_it_is_the_formula(name):
    family = small(name, std={"flamingo": 0.25, "senses": 0.35}.get(name, 0.3))  # so that it says no placeholder itself
    options = {"max_tokens": 8, "thoughts": True, "contrast": ALPHA, "plausible": BETA, "noise": STEPS}
    asked = [ask(0, "what is this?"), ask(1, "how many red circles are there?"), ask(0, "where?")]
    alone = [family.reply(one, **options).text for one in asked]
    assert bare(alone) == bare(written_out(family, one, 8) for one in asked)
    assert [r.text for r in family.reply_all(asked, **options)] == alone


def test_the_likeliest_stays_where_nothing_else_is_plausible():
    family = small("llava", std=0.3)
    plain = family.reply(ask(0, "what?"), max_tokens=8).text
    assert family.reply(ask(0, "what?"), max_tokens=8, contrast=5.0, plausible=1.0).text == plain
    assert family.reply(ask(0, "what?"), max_tokens=8, contrast=5.0, plausible=0.0).text != plain


def test_logits_by_hand():
    seen, noisy = torch.tensor([[2.0, 1.9, -9.0]]), torch.tensor([[3.0, 1.0, -20.0]])
    out = contrasted(seen, noisy, Sampling(contrast=1.0, plausible=0.1))[0].tolist()
    assert out == pytest.approx([1.0, 2.8, -torch.inf], abs=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 1.0, "seed": 3}, {"beams": 3}])
def test_it_goes_with_sampling_and_with_beams(options):
    family = small("llava", std=0.3)
    options |= {"max_tokens": 8, "contrast": ALPHA}
    asked = [ask(0, "what is this?"), ask(1, "how many red circles are there?")]
    alone = [family.reply(one, **options).text for one in asked]
    assert [r.text for r in family.reply_all(asked, **options)] == alone


def test_what_is_remembered_stays():
    family = small("llava", std=0.3)
    plain = family.reply(ask(0, "what?"), max_tokens=8).text
    before = family._last
    family.reply(ask(0, "what?"), max_tokens=8, contrast=1.0)
    assert family._last is before and family.reply(ask(0, "what?"), max_tokens=8).text == plain


def test_noise_does_not_hang_on_what_is_beside():
    pixels = torch.rand(3, 3, 8, 8)
    some = in_noise(pixels, [0, 500, 999])
    assert torch.equal(some[0], pixels[0]) and torch.equal(some[1:2], in_noise(pixels[1:2], [500]))
    torch.testing.assert_close(some[2:], diffused(pixels[2:], 999), rtol=0, atol=1e-5)
    assert in_noise(pixels, [0, 0, 0]) is pixels


def test_what_has_no_picture():
    with pytest.raises(pm.InputError, match="here is none; show one"):
        small("llava").reply("hello", contrast=1.0)
    with pytest.raises(pm.InputError, match="here is none; show one"):
        small("llama").reply_all([[pm.user("hello")]], contrast=1.0)
    with pytest.raises(pm.InputError, match="models that converse about pictures"):
        small("blip").caption(shown(0), contrast=1.0)
    with pytest.raises(pm.InputError, match=r"noise is 1000; it must lie between 1 and 999"):
        small("llava").reply(ask(0, "what?"), contrast=1.0, noise=1000)
    with pytest.raises(pm.InputError, match="the chat protocol has no contrast"):
        pm.load("openai:any", base_url="http://localhost:1/v1").reply("hello", contrast=1.0)
