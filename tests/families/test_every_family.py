"""What must hold for each family; parity with the reference is in tests/parity."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import panmodal as pm
import panmodal.families.chat
from panmodal.cache import Source
from panmodal.connectors import CONNECTORS
from panmodal.data.masks import to_rle
from panmodal.data.media import Medium
from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.data.template import ChatTemplate
from panmodal.generators.masks import ALL
from panmodal.language import logits_of
from panmodal.playground import caption, depth, make_scene, masks, render, sound
from panmodal.training import Stage, train
from tests.families.small import CHATS, EMBEDDERS, NAMES, SEERS, SPEAKERS, small

TEXTS = ["a red circle", "two blue stars and a green square"]


def scene_picture(seed: int) -> Image:
    return Image(render(make_scene(seed), 32))


def media(seed: int) -> list[Medium]:
    """What ImageBind takes beside pictures and texts"""
    scene, random = make_scene(seed), np.random.default_rng(seed)
    return [
        pm.Audio(sound(scene), 16_000),
        pm.Video(np.stack([render(make_scene(seed + i), 32) for i in range(3)]), rate=1),
        pm.Depth(depth(scene, 32) / 1000),
        pm.Thermal(random.random((32, 32))),
        pm.IMU(random.standard_normal((6, 40))),
    ]


@cache
def bound() -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Two of each kind, as ImageBind's towers read them, and the texts' padding"""
    processor = small("imagebind").processor
    pairs = [(m, other) for m, other in zip(media(0), media(1), strict=True) if m.kind != "video"]
    batch = processor.texts(["a red circle", "two blue stars and a green square"])
    return {m.kind: processor.medium(m.kind, [m, other]) for m, other in pairs} | {"text": batch.ids}, batch.pad


def samples(with_picture: bool) -> list[Sample]:
    made = []
    for seed in range(4):
        shown = [scene_picture(seed)] if with_picture else []
        said = ["red", "blue", "green", "white"][seed] if not with_picture else caption(make_scene(seed), "brief")
        asked = user(*shown, "what is it?" if shown else f"number {seed}?")
        made.append(Sample((asked, assistant(said)), {"masks": [to_rle(m) for m in masks(make_scene(seed), 32)]}))
    return made


class Four:
    size = 4

    def __init__(self, with_picture: bool) -> None:
        self.samples = samples(with_picture)

    def sample(self, index: int) -> Sample:
        return self.samples[index]


def output(family, name):
    """What the family's model makes of a picture and a text, as one vector."""
    model, pictures = family.model, [scene_picture(0), scene_picture(1)]
    if name == "imagebind":
        others, pad = bound()
        return torch.cat([x.flatten() for x in model(family.processor.pictures(pictures), others, pad).values()])
    if name == "blip":
        batch, images = family.processor.texts(TEXTS), family.processor.pictures(pictures)
        source = Source(model.image(images))
        alike = model.logits(model.embed_images(images), model.embed_texts(batch.ids, batch.pad))
        fits, said = model.match(source, batch.ids, batch.pad), model.decoder(batch.ids, source=source)
        return torch.cat([alike.flatten(), fits.flatten(), said.flatten()])
    if name in ("clip", "siglip", "blip2-itm"):
        batch, images = family.processor.texts(TEXTS), family.processor.pictures(pictures)
        alike = model(images, batch.ids, batch.pad).flatten()
        if name != "blip2-itm":
            return alike
        return torch.cat([alike, model.match(Source(model.encoder(images)), batch.ids, batch.pad).flatten()])
    if name in ("vit", "dinov2"):
        return model(family.processor.pictures(pictures)).flatten()
    if name in ("sam", "sam2"):
        images = family.processor.pictures(pictures)
        points, kinds = 32 * torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)), torch.arange(-1, 4)
        answers = [model(images, points, kinds.expand(2, -1), given, ALL) for given in (None, images.mean(1))]
        return torch.cat([t.flatten() for answer in answers for t in answer])
    if name == "bert":
        batch = family.processor.texts(TEXTS)
        return model(batch.ids, batch.pad)[batch.pad].flatten()
    shown = [] if name in SPEAKERS else pictures[:1] if name != "senses" else [*pictures[:1], *media(0)[:2]]
    batch = family.processor.batch([family.processor.encode([user(*shown, "how many?"), assistant("two")])])
    if name == "instructblip":  # of whose last words' feed-forward the queries see nothing
        asked = batch.instructions
        read = model.qformer(Source(model.encoder(batch.images)), asked.ids, asked.pad)
        return torch.cat([read.flatten(), model.read(batch).flatten()])
    return logits_of(model)(model.read(batch)).flatten()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_matters(name):
    """A weight that nothing depends on is a weight that was forgotten. (Keys' biases add the same to
    all scores of a query, which a softmax does not see.)"""
    family = small(name)
    with torch.no_grad():
        before = output(family, name)
        for parameter_name, parameter in family.model.named_parameters():
            if parameter_name.endswith(".k.bias"):
                continue
            kept = parameter.clone()
            parameter.add_(torch.randn_like(parameter))
            assert not torch.allclose(output(family, name), before, atol=1e-6), parameter_name
            parameter.copy_(kept)


STAGES = {
    "sam": "masks",
    "sam2": "masks",
    "imagebind": "anchored",
    "clip": "contrastive",
    "siglip": "sigmoid",
    "blip": "blip",
    "blip2-itm": "representation",
    "vit": "",
    "dinov2": "",
    "bert": "",
}


@cache
def overfitted(name):
    """A small model of a family, and the losses of the steps in which it learned four samples"""
    family = small(name, std=0.05)
    objective = STAGES.get(name, "answers")
    rate, count = {"answers": (3e-3, 200), "blip": (3e-3, 150), "masks": (3e-3, 250)}.get(objective, (2e-3, 250))
    stage = Stage("four", objective, "", {"all": rate}, steps=count, batch=4, warmup=0.1)
    four = Four(with_picture=objective != "answers" or name not in SPEAKERS)
    return family, [step.loss for step in train(family, four, stage)]


@pytest.mark.parametrize("name", NAMES)
def test_overfits_four_samples(name):
    if not STAGES.get(name, "answers"):
        return overfit_tower(small(name, std=0.05), name)
    family, losses = overfitted(name)
    assert losses[-1] < 0.1 * losses[0]
    if name in CHATS:
        for sample in Four(name in SEERS).samples:
            assert family.reply(sample.messages[0], max_tokens=40).text == sample.messages[1].text
    if name == "blip":
        pictures, texts = zip(*((s.images[0], s.messages[1].text) for s in samples(True)), strict=True)
        assert family.caption_all(pictures) == list(texts)
        for i, picture in enumerate(pictures):
            fits = family.match(picture, texts)
            assert fits[i] == max(fits) > 0.5
    return None


def overfit_tower(family, name):
    head = torch.nn.Linear(32, 4)
    optimiser = torch.optim.AdamW([*family.model.parameters(), *head.parameters()], lr=3e-3)
    if name == "bert":
        batch = family.processor.texts([m.text for s in samples(False) for m in s.messages[:1]])
        pooled = lambda: family.model.pooled(batch.ids, batch.pad)  # noqa: E731
    else:
        images = family.processor.pictures([scene_picture(i) for i in range(4)])
        pooled = lambda: family.model.encoder.pooled(images)  # noqa: E731
    for _ in range(80):
        loss = torch.nn.functional.cross_entropy(head(pooled()), torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


@pytest.mark.parametrize("name", EMBEDDERS)
def test_an_embedding_does_not_depend_on_its_neighbours(name):
    family = small(name)
    images = [scene_picture(i) for i in range(11)] if name != "bert" else []
    texts = ["a red circle", "two blue stars", "a large green square with the digit 7 at the top left"]
    items = [*images, *(texts if name not in ("vit", "dinov2") else [])]
    if name == "imagebind":
        items = [*media(0), *items, *media(1)]
    together = family.embed(items)
    assert together.shape[0] == len(items)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(len(items)))
    for item, vector in zip(items, together, strict=True):
        torch.testing.assert_close(family.embed([item])[0], vector, rtol=0, atol=1e-5)


def test_large_pictures_are_fewer_at_a_time(monkeypatch):
    family, seen = small("clip"), []
    pictures, encode = [scene_picture(i) for i in range(5)], family.model.image.pooled
    whole = family.embed(pictures)
    monkeypatch.setattr(family.model.image, "pooled", lambda x: seen.append(len(x)) or encode(x))
    for filled, expected in ((2.5 * 3 * 32 * 32, [2, 2, 1]), (1, [1] * 5)):
        monkeypatch.setattr(panmodal.families.base, "FILLED", int(filled))
        torch.testing.assert_close(family.embed(pictures), whole, rtol=0, atol=1e-5)
        assert seen == expected
        seen.clear()


def test_six_modalities_are_bound_to_pictures_alone():
    """Four samples of each, learned against their pictures, and found by one another."""
    family = small("imagebind", std=0.05)

    class Bound:
        size = 4

        def sample(self, index: int) -> Sample:
            others = [medium for medium in media(index) if medium.kind != "video"]
            return Sample((user(scene_picture(index), *others, f"number {index}"),))

    stage = Stage("four", "anchored", "", {"all": 5e-4}, steps=150, batch=4, warmup=0.1)
    steps = list(train(family, Bound(), stage))
    assert steps[-1].loss < 0.1 * steps[0].loss
    heard = family.embed([media(i)[0] for i in range(4)])
    read = family.embed([f"number {i}" for i in range(4)])
    assert (heard @ read.T).argmax(dim=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", CHATS)
def test_a_reply_does_not_depend_on_its_neighbours_or_on_what_was_said_before(name):
    family = small(name, std=0.3)
    shown = [scene_picture(i) for i in range(3)] if name in SEERS else []
    conversations = [
        [user(*shown[:1], "how many red circles are there?")],
        [user(*shown[:1], "where is the star?")],
        [user(*shown[1:2], "what colour is the large square on the left of the circle?")],
        [user(*shown, "which of these?")],
        [user("hello")],
        [user(*shown[:1], "where is the star?"), assistant("left"), user("and the circle?")],
    ]
    fresh = []
    for conversation in conversations:
        family.forget()
        fresh.append(family.reply(conversation, max_tokens=10).text)
    assert [r.text for r in family.reply_all(conversations, max_tokens=10)] == fresh
    again = [family.reply(c, max_tokens=10).text for c in conversations for _ in range(2)]  # with what it remembers
    assert again == [text for text in fresh for _ in range(2)]
    assert family.reply(conversations[0], max_tokens=10).text == fresh[0]


def test_what_is_remembered_is_dropped_when_a_weight_changes():
    family = small("llava", std=0.3)
    asked = [user(scene_picture(0), "how many?")]
    family.reply(asked, max_tokens=12)
    with torch.no_grad():
        family.model.encoder.embed.project.weight.mul_(-3)
    remembered = family.reply(asked, max_tokens=12).text
    family.forget()
    assert family.reply(asked, max_tokens=12).text == remembered


def test_one_picture_is_not_taken_for_another():
    """The prompt's tokens are the same; only the pixels differ."""
    family = small("llava", std=0.4)
    texts = set()
    for seed in range(6):
        reply = family.reply([user(scene_picture(seed), "what?")], max_tokens=12).text
        family.forget()
        assert family.reply([user(scene_picture(seed), "what?")], max_tokens=12).text == reply
        texts.add(reply)
    assert len(texts) > 1


def test_the_second_question_costs_the_question_alone(monkeypatch):
    family = small("llava")
    seen, asked = [], []
    encode, vectors = family.encode_images, family.vectors
    monkeypatch.setattr(
        family, "encode_images", lambda images, sizes: seen.append(len(images)) or encode(images, sizes)
    )
    monkeypatch.setattr(family, "vectors", lambda ids, media: asked.append(ids.shape[1]) or vectors(ids, media))
    picture = scene_picture(0)
    first = [user(picture, "how many red circles are there?")]
    family.reply(first, max_tokens=4)
    family.reply([user(picture, "where is the star?")], max_tokens=4)
    assert seen == [1]
    assert asked[0] > 16
    assert asked[1] < 10


def test_streaming_says_what_replying_does():
    family = small("llama", std=0.4)
    for options in ({}, {"temperature": 1.0, "seed": 1}, {"stop": "red"}, {"beams": 2}):
        family.forget()
        pieces = list(family.stream("tell me", max_tokens=30, **options))
        family.forget()
        assert "".join(pieces) == family.reply("tell me", max_tokens=30, **options).text


def test_a_stop_string_ends_the_reply_and_is_not_said():
    family = small("llama", std=0.4)
    text = family.reply("tell me", max_tokens=30).text
    stop = text.split()[4]
    cut = family.reply("tell me", max_tokens=30, stop=(stop,)).text
    assert cut == text[: text.index(stop)]


@pytest.mark.parametrize("begun", [False, True])
def test_thoughts_are_left_out_unless_they_are_asked_for(begun, monkeypatch):
    """As Qwen3 thinks: from a tag that it says itself, or that its template says for it."""
    family = small("qwen3")
    opening = "<think>" if begun else ""
    monkeypatch.setattr(family.processor, "_template", ChatTemplate(family.processor.template.source + opening))
    said = "the star is red. </think> no" if begun else "<think> the star is red. </think> no"
    ids = family.processor.tokenizer.encode(said, special=False)
    monkeypatch.setattr(panmodal.families.chat, "generate", lambda *_, **__: (torch.tensor([i]) for i in ids))
    assert family.reply("is it blue?").text == "no"
    assert [r.text for r in family.reply_all([[pm.user("is it blue?")]])] == ["no"]
    assert family.reply("is it blue?", stop=("star",)).text == "no"
    assert family.reply("is it blue?", thoughts=True).text == said


@pytest.mark.parametrize("kind", ["llava", "gpt_neox"])
def test_new_words_begin_as_the_mean_of_their_pieces(kind, tmp_path):
    model = small(kind, std=0.3)
    tokenizer, said = model.processor.tokenizer, "there is a red circle"
    before, pieces = model.reply(said, max_tokens=8), tokenizer.encode("touching", special=False)
    model.add_words(["touching", "circle"])
    (token,) = model.processor.tokenizer.encode("touching", special=False)
    assert len(pieces) > 1 and token == 344 and model.processor.tokenizer.encode("touchings", special=False) != [token]
    table = model.language.embed.vectors.weight
    assert len(table) == 345 and torch.equal(table[token], table[pieces].mean(0))
    assert (model.language.head.weight is table) == model.language.tied
    assert model.reply(said, max_tokens=8) == before
    model.save(tmp_path / "model")
    again = pm.load(tmp_path / "model")
    assert again.reply("touching", max_tokens=8) == model.reply("touching", max_tokens=8)
    assert again.processor.tokenizer.decode([token]) == "touching"


def test_an_unknown_option_is_an_error():
    with pytest.raises(pm.InputError, match="unknown option 'max_token'; did you mean 'max_tokens'"):
        small("llama").reply("hi", max_token=3)


def test_a_prompt_longer_than_the_context():
    with pytest.raises(pm.InputError, match="tokens .* the model reads 256"):
        small("llama").reply("red " * 300)
    long = small("llama").reply("red " * 245, max_tokens=100)
    assert long.role == "assistant"


def test_families_say_what_they_cannot_do():
    with pytest.raises(pm.InputError, match="does not see pictures|placeholders"):
        small("llama").reply([user(scene_picture(0), "what?")])
    with pytest.raises(pm.InputError, match="no image encoder"):
        pm.compose(small("llama"), "mlp", small("llama"))
    with pytest.raises(pm.InputError, match="did you mean 'linear'"):
        pm.compose(small("clip"), "lineer", small("llama"))
    with pytest.raises(pm.InputError, match="connector qformer has no option 'query'; did you mean 'queries'"):
        pm.compose(small("clip"), {"kind": "qformer", "query": 3}, small("llama"))
    with pytest.raises(pm.InputError, match="connector gated has no option 'everey'; did you mean 'every'"):
        pm.compose(small("clip"), {"kind": "gated", "everey": 3}, small("llama"))
    with pytest.raises(pm.InputError, match="no language model"):
        pm.compose(small("clip"), "mlp", small("clip"))
    with pytest.raises(pm.InputError, match="no vision layer -3: -1 is the last, -2 the first"):
        pm.compose(small("clip"), "mlp", small("llama"), layer=-3)
    with pytest.raises(pm.InputError, match="at least one label"):
        small("clip").classify(scene_picture(0), [])
    with pytest.raises(pm.InputError, match="no classification head"):
        small("vit").classify(scene_picture(0))


def test_classify():
    odds = small("clip").classify(scene_picture(0), ["red circle", "blue star"])
    assert list(odds) == ["red circle", "blue star"] and sum(odds.values()) == pytest.approx(1)
    odds = small("imagebind").classify(media(0)[0], ["red circle", "blue star"])
    assert list(odds) == ["red circle", "blue star"] and sum(odds.values()) == pytest.approx(1)
    odds = small("siglip").classify(scene_picture(0), ["red circle", "blue star"])
    assert all(0 <= share <= 1 for share in odds.values())


VECTORS = {
    "mlp": 16,
    "linear": 16,
    "pixel_shuffle": 4,
    "token_merging": 4,
    "abstractor": 4,
    "qformer": 5,
    "resampler": 5,
}


@pytest.mark.parametrize("kind", CONNECTORS)
def test_a_composed_model_saves_and_loads(kind, tmp_path):
    name = "llava" if kind == "mlp" else f"llava-{kind}"
    family = small(name)
    family.save(tmp_path)
    again = pm.load(tmp_path)
    asked = [user(scene_picture(0), "how many red circles are there?")]
    assert again.reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)
    assert again.processor.image_vectors == VECTORS[kind]


def test_models_are_composed_of_parts_by_name(tmp_path):
    for name in ("clip", "llama"):
        small(name).save(tmp_path / name)
    options = {"every": 2, "latents": 4, "depth": 1, "heads": 4, "head_dim": 8}
    gated = pm.compose(tmp_path / "clip", {"kind": "gated", **options}, tmp_path / "llama")
    assert type(gated) is type(small("flamingo")) and len(gated.model.gates) == 1
    assert pm.compose(tmp_path / "clip", "linear", small("llama")).processor.image_vectors == 16


def test_a_language_model_is_taken_out_of_one_that_sees():
    seeing = small("llava")
    family = pm.compose(small("clip"), "resampler", seeing)
    assert family.language.body is not None and len(family.language.embed.vectors.weight) == 344
    ids = torch.tensor([[7, 8, 9]])
    torch.testing.assert_close(family.model(ids), seeing.model(ids), rtol=0, atol=0)
    assert pm.compose(small("clip"), "mlp", small("blip2")).language.tied == small("blip2").language.tied


@pytest.mark.parametrize("layer", [-1, -2])
def test_a_composed_model_is_one_for_the_reference_too(layer, tmp_path):
    """LLaVA's own layout: the reference loads it whole, the towers' unused last layers included."""
    import transformers as tf

    family = pm.compose(small("clip"), "mlp", small("llama"), layer)
    family.save(tmp_path)
    theirs, told = tf.LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    picture = scene_picture(0)
    encoded = family.processor.encode([user(picture, "how many?")], reply=True)
    batch = family.processor.batch([encoded])
    text = [
        {"role": "user", "content": [{"type": "image", "image": picture.pixels}, {"type": "text", "text": "how many?"}]}
    ]
    asked = tf.AutoProcessor.from_pretrained(tmp_path).apply_chat_template(
        text, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert asked["input_ids"].tolist() == batch.ids.tolist()
    torch.testing.assert_close(asked["pixel_values"], batch.images, rtol=0, atol=0.02)
    with torch.no_grad():
        expected = theirs.eval()(input_ids=batch.ids, pixel_values=batch.images).logits
        torch.testing.assert_close(family.model(batch.ids, batch.images), expected, rtol=0, atol=1e-4)
