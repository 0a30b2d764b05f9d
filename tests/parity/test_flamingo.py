"""IDEFICS beside the reference's; OpenFlamingo beside the paper's equations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.pictures import ImageTransform
from panmodal.generate import Sampling, generate
from panmodal.playground.speech import tokenizer
from tests.parity.reference import VISION, close, load, pictures, tokens, write

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


@pytest.fixture(scope="module", params=["base", "instruct"])
def processors(request, fixtures, tmp_path_factory):
    """Ours and theirs, over a LLaMA's tokenizer with IDEFICS's marks."""
    folder = tmp_path_factory.mktemp(request.param)
    words = tf.AutoTokenizer.from_pretrained(fixtures / "stories260K")
    marks = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"][: 2 + (request.param == "instruct")]
    words.add_special_tokens({"additional_special_tokens": marks, "pad_token": "<unk>"})
    pixels = tf.IdeficsImageProcessorPil()
    settings = {
        **LM,
        "vocab_size": 512,
        "additional_vocab_size": len(marks),
        "vision_config": {**SEEN, "image_size": 224},
    }
    write(tf.IdeficsForVisionText2Text(tf.IdeficsConfig(**settings)), folder)
    words.save_pretrained(folder)
    pixels.save_pretrained(folder)
    return load(folder).processor, tf.IdeficsProcessor(pixels, words, add_end_of_utterance_token=False)


def test_idefics_prompts_and_photographs(processors, fixtures):
    ours, theirs = processors
    one, two, three = (pm.Image(path) for path in sorted((fixtures / "photos").glob("*.jpg"))[:3])
    marks = "<end_of_utterance>" in ours.template.source
    if marks:
        end = "<end_of_utterance>"
        said = [pm.user("What is it?", one), pm.assistant("A dog."), pm.user(two, three, "And these?")]
        pieces = [
            "User: What is it?",
            one,
            f"{end}\nAssistant: A dog.{end}\nUser:",
            two,
            three,
            f"And these?{end}\nAssistant:",
        ]
    else:
        pieces = ["User:", one, "What is it?\nAssistant: A dog.\nUser:", two, three, "And these?\nAssistant:"]
        said = [pm.user(*pieces)]
    encoded = ours.encode(said, reply=True)
    expected = theirs(text=[[p.pixels if isinstance(p, pm.Image) else p for p in pieces]])
    assert encoded.ids == expected["input_ids"][0].tolist()
    assert (ours.pictures(encoded.images) - expected["pixel_values"][0]).abs().max() < 1e-3


@pytest.mark.parametrize("old", [{"image_size": 32, "image_num_channels": 3}, {"size": {"height": 32, "width": 32}}])
def test_idefics_pictures_of_odd_sizes(old):
    """Published files give the size as `image_size`."""
    ours = ImageTransform.from_config({"image_processor_type": "IdeficsImageProcessor", **old})
    for size in [(31, 17), (500, 20), (97, 1024), (1, 1)]:
        picture = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        expected = tf.IdeficsImageProcessorPil(**old)([picture], return_tensors="pt")
        assert (ours([picture]) - expected).abs().max() < 1e-3


def split(x: torch.Tensor, heads: int = 8) -> torch.Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)


def attend(w: dict, at: str, x: torch.Tensor, media: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Eight heads; `seen` [B, T, S] is True where x [B, T, D] may look at media [B, S, E]."""
    q, (k, v) = split(x @ w[at + "to_q.weight"].T), map(split, (media @ w[at + "to_kv.weight"].T).chunk(2, -1))
    score = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).exp() * seen[:, None]
    share = score / score.sum(-1, keepdim=True).clamp(min=1e-30)  # a token that may see nothing gets nothing
    return (share @ v).transpose(1, 2).flatten(2) @ w[at + "to_out.weight"].T


def norm(w: dict, at: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], w[at + ".weight"], w[at + ".bias"])


def feed_forward(w: dict, at: str, x: torch.Tensor) -> torch.Tensor:
    return F.gelu(norm(w, at + "0", x) @ w[at + "1.weight"].T) @ w[at + "3.weight"].T


def resample(w: dict, features: torch.Tensor) -> torch.Tensor:
    """The paper's figure 5: latents attend to the features and themselves. [N, P, D] -> [N, 64, D]"""
    x = w["perceiver.latents"].expand(len(features), -1, -1)
    for i in range(6):
        at = f"perceiver.layers.{i}."
        latents = norm(w, at + "0.norm_latents", x)
        both = torch.cat([norm(w, at + "0.norm_media", features), latents], dim=1)
        x = x + attend(w, at + "0.", latents, both, torch.ones(1, 64, both.shape[1]))
        x = x + feed_forward(w, at + "1.", x)
    return norm(w, "perceiver.norm", x)


def gated(w: dict, at: str, y: torch.Tensor, media: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The paper's figure 4."""
    y = y + w[at + "attn_gate"].tanh() * attend(w, at + "attn.", norm(w, at + "attn.norm", y), media, seen)
    return y + w[at + "ff_gate"].tanh() * feed_forward(w, at + "ff.", y)


def open_flamingo(
    width: int, dim: int, layers: list[int], form: str, words: int, tables: tuple[str, ...] = ("model.embed_tokens",)
) -> dict[str, torch.Tensor]:
    """Random tensors under the names of the authors' files; `tables` are of words."""
    torch.manual_seed(3)
    new = lambda *shape: torch.randn(shape) * 0.2  # noqa: E731
    weigh = lambda at, d: {f"{at}.weight": 1 + new(d), f"{at}.bias": new(d)}  # noqa: E731
    w = {"perceiver.latents": new(64, width), **weigh("perceiver.norm", width)}

    def attention(at: str, own: int, seen: int) -> None:
        w.update(
            {
                at + "to_q.weight": new(512, own),
                at + "to_kv.weight": new(1024, seen),
                at + "to_out.weight": new(own, 512) / 8,
            }
        )

    def mlp(at: str, own: int) -> None:
        w.update({**weigh(at + "0", own), at + "1.weight": new(4 * own, own), at + "3.weight": new(own, 4 * own)})

    for i in range(6):
        w |= weigh(f"perceiver.layers.{i}.0.norm_media", width) | weigh(f"perceiver.layers.{i}.0.norm_latents", width)
        attention(f"perceiver.layers.{i}.0.", width, width)
        mlp(f"perceiver.layers.{i}.1.", width)
    for i in layers:
        at = "lang_encoder." + form.format(i)
        w |= weigh(at + "attn.norm", dim) | {at + "attn_gate": 0.5 + new(1), at + "ff_gate": 0.5 + new(1)}
        attention(at + "attn.", dim, width)
        mlp(at + "ff.", dim)
    return w | {f"lang_encoder.{table}.weight": new(words, dim) for table in tables}


FORMS = ("model.layers.{}.gated_cross_attn_layer.", "gated_cross_attn_layers.{}.")
SPOKEN = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96, vocab_size=344)
NEOX = dict(**SPOKEN, max_position_embeddings=128, eos_token_id=None)
# The language model, its layers, its tables of words that a checkpoint has, what else the file may say of a layer
LANGUAGES = {
    "llama": (
        lambda: tf.LlamaForCausalLM(
            tf.LlamaConfig(**SPOKEN, max_position_embeddings=128, tie_word_embeddings=True, eos_token_id=None)
        ),
        "model.layers",
        ("model.embed_tokens",),
        ("self_attn.rotary_emb.inv_freq",),
    ),
    "mpt": (
        lambda: tf.MptForCausalLM(
            tf.MptConfig(d_model=32, n_layers=4, n_heads=4, max_seq_len=128, vocab_size=344, eos_token_id=None)
        ),
        "transformer.blocks",
        ("transformer.wte",),
        (),
    ),
    "gpt_neox": (
        lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**NEOX)),
        "gpt_neox.layers",
        ("gpt_neox.embed_in", "embed_out"),
        ("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"),
    ),
    "gpt_neox-in-turn": (  # as RedPajama's
        lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**NEOX, use_parallel_residual=False, rotary_pct=1.0)),
        "gpt_neox.layers",
        ("gpt_neox.embed_in", "embed_out"),
        (),
    ),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A CLIP image tower and language models, in the reference's files, with the playground's tokenizer."""
    seen, spoken = tmp_path_factory.mktemp("clip"), {}
    clip = write(tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)), seen)
    (seen / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}})
    )
    for kind, (make, *_) in LANGUAGES.items():
        folder = tmp_path_factory.mktemp(kind)
        spoken[kind] = folder, write(make(), folder)
        for name, content in tokenizer().to_files().items():
            (folder / name).write_bytes(content)
    return (seen, clip), spoken


def compose(parts, checkpoint, kind="llama", **options):
    (seen, _), spoken = parts
    return pm.flamingo(load(seen), load(spoken[kind][0]), checkpoint, **{"allow_pickle": True, "every": 2, **options})


@pytest.fixture(params=[*FORMS, "every", "trained", *(kind for kind in LANGUAGES if kind != "llama")], scope="module")
def opened(request, parts, tmp_path_factory):
    """Ours from a `checkpoint.pt`, its tensors, the layers with a gate before them, the gates' name, and the kind of
    language model."""
    every = 1 if request.param == "every" else 2
    layers = list(range(every - 1, 4, every))
    kind = request.param if request.param in LANGUAGES else "llama"
    _, blocks, tables, buffers = LANGUAGES[kind]
    form = request.param if "{" in request.param else blocks + ".{}.gated_cross_attn_layer."
    w = open_flamingo(48, 32, layers, form, 345, tables)
    content = w | {f"lang_encoder.{blocks}.0.decoder_layer.{name}": torch.ones(3) for name in buffers}
    if request.param == "trained":  # with the optimiser's state, from several machines
        content = {"epoch": 1, "model_state_dict": {f"module.{k}": t for k, t in content.items()}}
    file = tmp_path_factory.mktemp("open") / "checkpoint.pt"
    torch.save(content, file)
    return compose(parts, file, kind, every=every), w, layers, form, kind


def reference_logits(parts, opened, ids, images):
    (_, clip), spoken = parts
    _, w, layers, form, kind = opened
    _, blocks, tables, _ = LANGUAGES[kind]
    language = spoken[kind][1]
    with torch.no_grad():
        language.resize_token_embeddings(345)
        for table, held in zip(tables, (language.get_input_embeddings(), language.get_output_embeddings())):  # noqa: B905
            held.weight.copy_(w[f"lang_encoder.{table}.weight"])
        features = resample(w, clip(images).last_hidden_state[:, 1:])  # [N, 64, 48]
    token = tokenizer().id_of("<image>")
    shown = (ids == token).cumsum(1)
    media, seen = torch.zeros(len(ids), 64 * len(images), 48), torch.zeros(*ids.shape, 64 * len(images))
    first = 0
    for row, count in enumerate(shown[:, -1].tolist()):
        for i in range(count):
            span = slice(64 * i, 64 * (i + 1))
            media[row, span] = features[first + i]
            seen[row, :, span] = (shown[row] == i + 1)[:, None]
        first += count
    hooks = []
    for layer in layers:
        at = "lang_encoder." + form.format(layer)
        before = lambda _, args, at=at: (gated(w, at, args[0], media, seen), *args[1:])  # noqa: E731
        hooks.append(language.get_submodule(blocks)[layer].register_forward_pre_hook(before))
    with torch.no_grad():
        logits = language(ids).logits
    for hook in hooks:
        hook.remove()
    return logits


def among_words(*counts: int) -> torch.Tensor:
    return prompt(*counts).masked_fill(prompt(*counts) == IMAGE, tokenizer().id_of("<image>"))


@pytest.mark.parametrize("counts", [(1,), (3, 1), (0, 2)])
def test_open_flamingo_logits(parts, opened, counts):
    ids, images = among_words(*counts), pictures(sum(counts))
    ids[0, -1] = opened[0].processor.tokenizer.id_of("<|endofchunk|>")
    with torch.no_grad():
        close(opened[0].model(ids, images), reference_logits(parts, opened, ids, images), 1e-4)


def test_open_flamingo_generation(parts, opened):
    """Pictures and words as its users write them, greedily: the reference begins anew for every token."""
    family = opened[0]
    photos = [pm.Image(((p.permute(1, 2, 0) * 40 + 128).clamp(0, 255)).byte().numpy()) for p in pictures(3)]
    said = [pm.user(photos[0], "two cats.<|endofchunk|>", photos[1], "a star.<|endofchunk|>", photos[2], "a")]
    encoded = family.processor.encode(said, reply=True)
    text = "<image>two cats.<|endofchunk|><image>a star.<|endofchunk|><image>a"
    assert encoded.ids == [2, *family.processor.tokenizer.encode(text, special=False)]
    ids, images = torch.tensor([encoded.ids]), family.processor.pictures(photos)
    for _ in range(32):
        ids = torch.cat([ids, reference_logits(parts, opened, ids, images)[:, -1].argmax(-1, keepdim=True)], 1)
    source = family.source(torch.tensor([encoded.ids]), encoded.shown)
    x = family.language.embed.words(torch.tensor([encoded.ids]))
    new = list(generate(family.language, torch.tensor([encoded.ids]), x, Sampling(max_tokens=32), source=source))
    assert torch.cat(new).tolist() == ids[0, len(encoded.ids) :].tolist()


def test_open_flamingo_is_saved_whole(opened, tmp_path):
    family = opened[0]
    family.save(tmp_path)
    again = load(tmp_path)
    ids, images = among_words(2, 1), pictures(3)
    with torch.no_grad():
        assert torch.equal(again.model(ids, images), family.model(ids, images))
    assert again.processor.template.source == family.processor.template.source


def test_a_checkpoint_that_does_not_fit(parts, tmp_path):
    w, file = open_flamingo(48, 32, [1, 3], FORMS[0], 345), tmp_path / "checkpoint.pt"

    def refused(content, message, **options):
        torch.save(content, file)
        with pytest.raises(pm.CheckpointError, match=message):
            compose(parts, file, **options)

    refused(w, "a pickle, which can carry code", allow_pickle=False)
    refused(w, "a gate before block 1, and every=4 puts none there", every=4)
    refused(w, r"'lang_encoder.gated_cross_attn_layers.0.attn_gate' \[1\] is missing", every=1)
    refused({**w, "perceiver.frame_embs": torch.ones(1, 48)}, "unknown tensor 'perceiver.frame_embs'")
    refused({k: t for k, t in w.items() if k != "perceiver.latents"}, r"'perceiver.latents' \[64, 48\] is missing")
    refused({**w, "perceiver.latents": torch.ones(64, 40)}, r"'perceiver.latents' is \[64, 40\]")
    refused({**w, "lang_encoder.model.embed_tokens.weight": torch.ones(344, 32)}, "knows 344 words")
    refused({"epoch": 3}, "more than tensors")
    refused({"perceiver": print}, "cannot be read as plain weights")
