from __future__ import annotations

import pytest
import torch

from panmodal.cache import Cache, Source
from panmodal.embeddings import PatchEmbedding, Rope
from panmodal.encoders.image import FirstToken, ImageEncoder, ScaledBlock
from panmodal.errors import InputError
from panmodal.transformer import Attention, Block, CrossBlock, Transformer, TransformerConfig, initialise

CONFIGS = {
    "encoder": TransformerConfig(dim=32, depth=2, heads=4),
    "causal": TransformerConfig(dim=32, depth=2, heads=4, causal=True),
    "grouped-rotary": TransformerConfig(
        dim=32, depth=2, heads=4, kv_heads=2, causal=True, rope=Rope(), norm="rms", gated=True, activation="silu"
    ),
    "windowed": TransformerConfig(dim=32, depth=2, heads=4, causal=True, rope=Rope(), window=3),
    "distances": TransformerConfig(dim=32, depth=2, heads=4, causal=True, alibi=8, norm="layer_no_bias"),
}


def model(name: str) -> Transformer:
    torch.manual_seed(0)
    made = Transformer(CONFIGS[name])
    initialise(made, std=0.3)
    return made.eval()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_padding_does_not_show(name):
    body, x = model(name), torch.randn(1, 6, 32)
    alone = body(x)
    for left in (True, False):
        filler = torch.randn(1, 3, 32)
        pad = torch.tensor([[False] * 3 + [True] * 6]) if left else torch.tensor([[True] * 6 + [False] * 3])
        padded = body(torch.cat([filler, x] if left else [x, filler], 1), pad)
        torch.testing.assert_close(padded[pad][None], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["causal", "grouped-rotary", "windowed", "distances"])
@torch.no_grad()
def test_cached_equals_uncached(name):
    body, x = model(name), torch.randn(2, 8, 32)
    cache = Cache(body.config, 2, 8, x)
    parts = [body(x[:, a:b], cache=cache) for a, b in ((0, 3), (3, 4), (4, 8))]
    torch.testing.assert_close(torch.cat(parts, 1), body(x), rtol=0, atol=1e-5)
    assert cache.length == 8


@torch.no_grad()
def test_a_window_limits_what_is_seen():
    body, x = model("windowed"), torch.randn(1, 8, 32)
    moved = x.clone()
    moved[:, 0] *= -1
    changed = (body(moved) - body(x)).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [True] * 5 + [False] * 3  # two blocks, each seeing two tokens back


@pytest.mark.parametrize(("block", "pre_norm"), [(Block, True), (Block, False), (ScaledBlock, True)])
@torch.no_grad()
def test_the_first_token_alone_is_the_first_of_all(block, pre_norm):
    torch.manual_seed(0)
    config = TransformerConfig(dim=32, depth=3, heads=4, pre_norm=pre_norm)
    encoder = ImageEncoder(PatchEmbedding(32, 8, 2), config, FirstToken(), block)
    initialise(encoder, std=0.3)
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(encoder.first(images), encoder(images)[:, :1], rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.pooled(images), encoder(images)[:, 0], rtol=0, atol=1e-5)


def test_a_full_cache_says_so():
    body = model("causal")
    cache = Cache(body.config, 1, 4, torch.zeros(1))
    with pytest.raises(InputError, match="room for 4 tokens, 0 are used and 5 more came"):
        body(torch.randn(1, 5, 32), cache=cache)


@torch.no_grad()
def test_a_cache_grows_forgets_and_selects():
    body, x = model("causal"), torch.randn(2, 6, 32)
    cache = Cache(body.config, 2, 4, x)
    body(x[:, :4], cache=cache)
    cache.resize(8, 3)
    cache.select(torch.tensor([1, 0]))
    torch.testing.assert_close(body(x[[1, 0], 3:], cache=cache), body(x)[[1, 0], 3:], rtol=0, atol=1e-5)


def test_scaled_rotary_keeps_the_fast_turns():
    from panmodal.embeddings import frequencies

    plain = frequencies(Rope(), 32)
    llama = frequencies(Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=64), 32)
    assert llama[0] == plain[0]
    assert llama[-1] == pytest.approx(plain[-1] / 8)
    assert frequencies(Rope(factor=4.0), 32)[3] == pytest.approx(plain[3] / 4)


@torch.no_grad()
def test_positions_stretch_to_other_sizes():
    embed = PatchEmbedding(8, 32, 8)
    torch.nn.init.normal_(embed.positions)
    assert embed.positions_for(4, 4) is embed.positions
    assert embed(torch.randn(1, 3, 48, 64)).shape == (1, 1 + 6 * 8, 8)


@torch.no_grad()
def test_fresh_patches_know_where_they_lie():
    """Row and column are linear in what a transformer reads of patches of noise."""
    embed = PatchEmbedding(64, 96, 8)
    initialise(embed)
    tokens = embed(torch.randn(20, 3, 96, 96))[:, 1:].flatten(0, 1)
    places = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0)).repeat(20, 1) - 5.5
    found = tokens @ torch.linalg.lstsq(tokens, places).solution
    assert (found - places).square().mean() < 0.4 * places.square().mean()


@pytest.mark.parametrize("dim", [64, 512])
def test_fresh_weights_keep_the_variance_at_any_width(dim):
    made = Transformer(TransformerConfig(dim=dim, depth=2, heads=4, mlp_dim=256))
    initialise(made)
    mlp = made.blocks[0].mlp
    assert mlp.up.weight.std().item() == pytest.approx(dim**-0.5, rel=0.05)
    assert mlp.down.weight.std().item() == pytest.approx(256**-0.5 / 2, rel=0.05)  # ends a branch; four do
    assert not mlp.up.bias.any()
    assert made.norm.weight.eq(1).all()


@torch.no_grad()
def test_a_source_is_read_once_and_only_where_it_may_be():
    torch.manual_seed(0)
    config = TransformerConfig(dim=32, depth=2, heads=4, causal=True)
    body = Transformer(config, lambda c, layer: CrossBlock(c, layer, source_dim=16)).eval()
    initialise(body, std=0.3)
    x, vectors = torch.randn(2, 6, 32), torch.randn(2, 5, 16)
    mask = torch.ones(2, 1, 6, 5, dtype=torch.bool).tril(2)  # later tokens see more
    whole = body(x, source=Source(vectors, mask))
    assert (whole - body(x)).abs().max() > 0.1
    unseen = vectors.clone()
    unseen[:, 4] = 0
    changed = (body(x, source=Source(unseen, mask)) - whole).abs().amax(-1) > 1e-6
    assert changed.tolist() == [[False] * 2 + [True] * 4] * 2

    source, cache = Source(vectors, mask[:, :, :4]), Cache(config, 2, 6, x)
    first = body(x[:, :4], cache=cache, source=source)
    torch.testing.assert_close(first, whole[:, :4], rtol=0, atol=1e-5)
    made = [source.seen_by(block.cross)[0] for block in body.blocks]
    source.mask = mask[:, :, 4:]
    torch.testing.assert_close(body(x[:, 4:], cache=cache, source=source), whole[:, 4:], rtol=0, atol=1e-5)
    assert all(source.seen_by(block.cross)[0] is k for block, k in zip(body.blocks, made, strict=True))
    source.select(torch.tensor([1, 0]))
    source.mask = mask[[1, 0], :, 5:]
    cache.length = 5
    cache.select(torch.tensor([1, 0]))
    torch.testing.assert_close(body(x[[1, 0], 5:], cache=cache, source=source), whole[[1, 0], 5:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_first_tokens_that_come_alone_glance(bias):
    """They see what keys and values would show them, but of so few none are made."""
    torch.manual_seed(0)
    config = TransformerConfig(dim=32, depth=1, heads=8, causal=True, qkv_bias=bias)
    body = Transformer(config, lambda c, layer: CrossBlock(c, layer, source_dim=16)).eval()
    initialise(body, std=0.3)
    for name, parameter in body.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    x, vectors = torch.randn(2, 7, 32), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    whole = body(x, source=Source(vectors, mask))
    for dtype, atol in ((torch.float32, 1e-5), (torch.bfloat16, 0.2)):
        body.to(dtype)
        source, cache = Source(vectors.to(dtype), mask), Cache(config, 2, 7, x.to(dtype))
        for i in range(7):
            out = body(x[:, i : i + 1].to(dtype), cache=cache, source=source)
            torch.testing.assert_close(out.float(), whole[:, i : i + 1], rtol=0, atol=atol)
            assert bool(source._made) == (i >= 4)  # a head is four wide


@torch.no_grad()
def test_who_must_not_glance():
    vectors = torch.randn(1, 20, 32)
    for switches in ({"kv_heads": 2}, {"qk_norm": True}):
        attention = Attention(TransformerConfig(dim=32, depth=1, heads=8, **switches))
        assert not Source(vectors).glance(attention, 1)
    attention = Attention(TransformerConfig(dim=32, depth=1, heads=8))
    assert Source(vectors).glance(attention, 1)
    assert not Source(vectors).glance(attention, 2)
    assert not Source(vectors[:, :4]).glance(attention, 1)  # few vectors, whose keys cost next to nothing
    with torch.enable_grad():
        assert not Source(vectors).glance(attention, 1)
