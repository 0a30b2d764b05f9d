"""What a token sees, and that nothing of it depends on what is remembered."""

from __future__ import annotations

import pytest
import torch

import panmodal as pm
from panmodal.cache import Source
from panmodal.connectors.gated import latest_only
from panmodal.data.sample import assistant, user
from panmodal.transformer import Block
from tests.families.small import small
from tests.families.test_every_family import scene_picture


def test_a_token_sees_the_latest_picture_up_to_it():
    places = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    source = latest_only(places, torch.arange(1.0, 4).view(3, 1, 1).expand(3, 2, 1))  # three of two vectors each
    seen = [
        [sorted(set(source.vectors[row, source.mask[row, 0, token], 0].tolist())) for token in range(5)]
        for row in range(3)
    ]
    assert seen[0] == [[0], [1], [1], [2], [2]]  # zeros where there is none yet
    assert seen[1] == [[0]] * 4 + [[3]]
    assert seen[2] == [[0]] * 5
    assert source.mask_for(1).shape == (3, 1, 1, 6)
    with pytest.raises(pm.InputError, match="3 places for pictures and there are 2"):
        latest_only(places, torch.ones(2, 2, 1))


@pytest.mark.parametrize("name", ["flamingo", "adapter", "idefics"])
@torch.no_grad()
def test_cached_equals_uncached(name):
    """In pieces, each with the pictures so far, and then token by token after the last of them."""
    model = small(name, std=0.3).model
    token = model.image_token
    ids = torch.tensor([[7, token, 8, 9, token, 10, 11, 12], [0, 0, 7, token, 9, 11, 12, 13]])
    pad = torch.tensor([[True] * 8, [False] * 2 + [True] * 6])
    images = torch.randn(3, 3, 32, 32)
    whole = model(ids, images, pad)
    pictures, words, cache = model.encode(images), model.language.embed.words(ids), model.language.make_cache(2, 8)
    parts = []
    for start, end, shown in ((0, 3, pictures[:1]), (3, 6, pictures)):  # the other two come later
        source = model.source(ids[:, :end], shown)
        parts.append(model.language.decode(words[:, start:end], pad[:, :end], cache, source))
    for i in (6, 7):  # the source of the prompt goes on from its last row
        parts.append(model.language.decode(words[:, i : i + 1], pad[:, : i + 1], cache, source))
    logits = model.language.logits(torch.cat(parts, dim=1))
    torch.testing.assert_close(logits[pad], whole[pad], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["flamingo", "adapter", "idefics"])
def test_turns_with_pictures_are_remembered_rightly(name, monkeypatch):
    """Later turns start from the earlier ones' keys and values, and say what a fresh start says; a picture that is
    changed in an early turn is noticed."""
    family = small(name, std=0.4)
    sizes, vectors = [], family.vectors
    monkeypatch.setattr(family, "vectors", lambda ids, media: sizes.append(ids.shape[1]) or vectors(ids, media))
    said, texts = [], []
    for turn in range(3):
        said += [user("this:", scene_picture(turn), "is")]
        texts.append(family.reply(said, max_tokens=8).text)
        said += [assistant("a red star.")]
    first = [user("this:", scene_picture(7), "is"), *said[1:-1]]
    changed = family.reply(first, max_tokens=8).text
    assert max(sizes[1:3]) < 16 < sizes[3]
    for conversation, text in ((said[:1], texts[0]), (said[:3], texts[1]), (said[:5], texts[2]), (first, changed)):
        family.forget()
        assert family.reply(conversation, max_tokens=8).text == text


def test_many_pictures_are_encoded_once_each(monkeypatch):
    family = small("flamingo")
    seen, encode = [], family.encode_images
    monkeypatch.setattr(family, "encode_images", lambda images, sizes: seen.append(len(images)) or encode(images))
    shots = [part for seed in range(20) for part in (scene_picture(seed), "a star.<|endofchunk|>")]
    for query in (30, 31):
        family.reply([user(*shots, scene_picture(query))], max_tokens=2)
    assert seen == [21, 1]


@torch.no_grad()
def test_a_reply_ends_with_the_chunk():
    family = small("flamingo", std=0.4)
    asked = [user(scene_picture(0), "what?")]
    batch = family.processor.batch([family.processor.encode(asked, reply=True)])
    end = family.processor.tokenizer.id_of("<|endofchunk|>")
    family.language.head.weight[end] = family.model.read(batch)[0, -1]  # by far the likeliest
    assert family.reply(asked, max_tokens=8).text == ""


def test_what_cannot_be_composed():
    with pytest.raises(pm.InputError, match="every is 3; the language model has 2 layers"):
        pm.flamingo(small("clip"), small("llama"), every=3)
    with pytest.raises(pm.InputError, match="no image encoder"):
        pm.flamingo(small("llama"), small("llama"))
    with pytest.raises(pm.InputError, match="layers is 3; the language model has 2"):
        pm.compose(small("clip"), {"kind": "adapter", "layers": 3}, small("llama"))
    with pytest.raises(pm.InputError, match="prompts go with blocks of attention, then an MLP"):
        pm.compose(small("clip"), "adapter", small("gpt_neox"))


@pytest.mark.parametrize("kind", ["gated", "adapter"])
def test_fresh_gates_leave_the_language_model_as_it_was(kind):
    language = small("llama", std=0.3)
    ids = torch.tensor([[7, 8, 9, 4, 10]])
    before = language.model(ids)
    family = pm.compose(small("clip"), kind, language)
    torch.testing.assert_close(family.model(ids, torch.randn(1, 3, 32, 32))[..., :344], before, rtol=0, atol=1e-5)
    torch.testing.assert_close(language.model(ids), before, rtol=0, atol=0)


@torch.no_grad()
def test_prompts_are_seen_by_the_weights_of_the_attention_itself():
    """LLaMA-Adapter's equations, for prompts that a picture was added to, and without one."""
    family = small("adapter", std=0.3)
    block = family.language.body.blocks[-1]
    x, features = torch.randn(2, 3, 32), torch.randn(2, 4, 32)

    def heads(linear, vectors):
        return linear(vectors).view(2, -1, block.attn.k.out_features // block.attn.head_dim, block.attn.head_dim)

    for source, prompts in (
        (Source(features), block.gate.prompts + block.gate.project(features)),
        (None, block.gate.prompts.expand(2, -1, -1)),
    ):
        plain = Block.forward(block, x)
        seen = block.attn_norm(x)
        q = block.attn.q(seen).view(2, 3, -1, block.attn.head_dim)
        groups = q.shape[2] // heads(block.attn.k, prompts).shape[2]
        k, v = (heads(m, prompts).repeat_interleave(groups, 2) for m in (block.attn.k, block.attn.v))
        odds = (torch.einsum("bthe,bshe->bhts", q, k) / block.attn.head_dim**0.5).softmax(-1)
        found = block.attn.out(torch.einsum("bhts,bshe->bthe", odds, v).flatten(2))
        attended = x + block.attn(seen) + block.gate.gate.tanh() * found
        expected = attended + block.mlp(block.mlp_norm(attended))
        torch.testing.assert_close(block(x, source=source), expected, rtol=0, atol=1e-5)
        assert (expected - plain).abs().max() > 1e-3
