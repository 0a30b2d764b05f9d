"""IDEFICS beside the reference's; OpenFlamingo beside the paper's equations."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

from panmodal.generate import Sampling, generate
from tests.parity.reference import close, load, pictures, tokens, write

IMAGE = 101  # after 100 words: one that goes around pictures, and one that stands for them
LM = dict(
    vocab_size=100,
    additional_vocab_size=2,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=4,
    max_position_embeddings=128,
    eos_token_id=None,
)
SEEN = dict(embed_dim=40, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72, image_size=32, patch_size=8)
LATENTS = dict(resampler_n_latents=5, resampler_depth=2, resampler_n_heads=2, resampler_head_dim=12)
IDEFICS = {
    "plain": dict(use_resampler=True, perceiver_config=LATENTS),
    "norms-every-2": dict(
        use_resampler=True,
        perceiver_config={**LATENTS, "qk_layer_norms_perceiver": True},
        qk_layer_norms=True,
        cross_layer_interval=2,
    ),
    "no-resampler": dict(use_resampler=False, cross_layer_interval=4),
    "no-added-words": dict(use_resampler=True, perceiver_config=LATENTS, vocab_size=102, additional_vocab_size=0),
}


@pytest.fixture(params=IDEFICS, scope="module")
def pair(request, tmp_path_factory):
    config = tf.IdeficsConfig(**{**LM, "vision_config": SEEN, **IDEFICS[request.param]})
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write(tf.IdeficsForVisionText2Text(config), folder)
    ours = load(folder)
    ours.model.image_token = IMAGE
    return ours, theirs


def prompt(*counts: int) -> torch.Tensor:
    """A row for each count: words, and among them so many pictures."""
    length = 4 + 3 * max(counts)
    ids = tokens(len(counts), length)
    for row, count in enumerate(counts):
        ids[row, 2 : 2 + 3 * count : 3] = IMAGE
    return ids


def seen_by_reference(ids: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Their form of it: as many pictures a row as the fullest has, and which one each token sees."""
    shown = (ids == IMAGE).cumsum(1)
    most = max(1, int(shown.max()))
    pixels = torch.zeros(len(ids), most, *images.shape[1:])
    pixels[torch.arange(most) < shown[:, -1:]] = images
    mask = shown[..., None] == torch.arange(1, most + 1)
    return dict(input_ids=ids, pixel_values=pixels, image_attention_mask=mask.long())


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (0, 2), (2,)])
def test_idefics_logits(pair, counts):
    ours, theirs = pair
    ids, images = prompt(*counts), pictures(sum(counts))
    with torch.no_grad():
        close(ours.model(ids, images), theirs(**seen_by_reference(ids, images)).logits)


def test_idefics_without_pictures(pair):
    ours, theirs = pair
    ids = prompt(0, 0)
    with torch.no_grad():
        close(ours.model(ids), theirs(**seen_by_reference(ids, pictures(0))).logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_idefics_padded_rows(pair, side):
    ours, theirs = pair
    ids, images = prompt(1, 3), pictures(4)
    pad = torch.ones_like(ids, dtype=torch.bool)
    pad[0, slice(2) if side == "left" else slice(-2, None)] = False
    with torch.no_grad():
        expected = theirs(**seen_by_reference(ids, images), attention_mask=pad.long()).logits
        close(ours.model(ids, images, pad)[pad], expected[pad])


@pytest.mark.parametrize("counts", [(1, 1), (3, 1), (2,)])
def test_idefics_generation(pair, counts):
    ours, theirs = pair
    ids, images = prompt(*counts), pictures(sum(counts))
    with torch.no_grad():
        source = ours.model.source(ids, ours.model.encode(images))
    x = ours.language.embed.words(ids)
    out = torch.stack(list(generate(ours.language, ids, x, Sampling(max_tokens=32), source=source)), 1)
    expected = theirs.generate(
        **seen_by_reference(ids, images), max_new_tokens=32, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert out.tolist() == expected[:, ids.shape[1] :].tolist()


def test_idefics_saves_what_the_reference_reads(pair, tmp_path):
    ours, theirs = pair
    ours.save(tmp_path)
    again, told = tf.IdeficsForVisionText2Text.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs.parameters(), strict=True))
