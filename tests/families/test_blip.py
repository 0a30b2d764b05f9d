"""What a BLIP does for a person, and how it is kept; parity with the reference is in tests/parity."""

from __future__ import annotations

import json

import pytest
import torch

import panmodal as pm
from panmodal.cache import Source
from panmodal.data.sample import Sample
from panmodal.quick import QuickLinear
from panmodal.training import Stage, train
from panmodal.training.run import open_source
from panmodal.training.stages import OBJECTIVES
from tests.families.small import CONFIGS, small
from tests.families.test_every_family import scene_picture

PICTURES = [scene_picture(seed) for seed in range(5)]
TEXTS = ["a red circle", "two blue stars", "a large green square with the digit 7 at the top left"]


def other(architecture):
    """A small model of another architecture."""
    from panmodal.families import BlipHybrid

    torch.manual_seed(0)
    return BlipHybrid.fresh({**CONFIGS["blip"], "architectures": [architecture]}, small("blip").checkpoint.files)


def test_captions_do_not_depend_on_their_neighbours():
    family = small("blip", std=0.4)
    for options in ({}, {"prompt": "on a black"}, {"beams": 3}, {"temperature": 1.0, "seed": 5}):
        together = family.caption_all(PICTURES, rows=3, max_tokens=12, **options)
        assert together == [family.caption(picture, max_tokens=12, **options) for picture in PICTURES]
        assert all(text.startswith(options.get("prompt", "")) for text in together)
    assert len(set(together)) > 1


def test_a_caption_is_the_likeliest_word_each_time():
    """With keys and values kept, of words and of the picture, as without."""
    family = small("blip", std=0.4)
    model = family.model
    ids = torch.tensor([[model.start]])
    with torch.no_grad():
        tokens = model.image(family.processor.pictures(PICTURES[:1]))
        for _ in range(12):
            likeliest = model.decoder(ids, source=Source(tokens))[:, -1:].argmax(-1)
            ids = torch.cat([ids, likeliest], dim=1)
    said = ids[0, 1:].tolist()
    said = said[: said.index(model.end)] if model.end in said else said
    assert family.caption(PICTURES[0], max_tokens=12) == family.processor.tokenizer.decode(said)


def test_a_quick_blip_says_the_same(tmp_path):
    plain, family = small("blip", std=0.4), small("blip", std=0.4).quicken()
    assert isinstance(family.model.decoder.head, QuickLinear)
    assert family.caption_all(PICTURES, max_tokens=12) == plain.caption_all(PICTURES, max_tokens=12)
    assert family.caption(PICTURES[0], max_tokens=12) == plain.caption(PICTURES[0], max_tokens=12)
    family.save(tmp_path)
    assert pm.load(tmp_path).caption(PICTURES[0]) == plain.caption(PICTURES[0])
    retrieval = other("BlipForImageTextRetrieval")
    assert retrieval.quicken() is retrieval  # which has nothing to say


def test_a_match_does_not_depend_on_its_neighbours():
    family = small("blip", std=0.3)
    together = family.match(PICTURES[0], TEXTS, rows=2)
    assert together == pytest.approx([family.match(PICTURES[0], [text])[0] for text in TEXTS], abs=1e-5)
    assert together != pytest.approx(family.match(PICTURES[1], TEXTS), abs=1e-3)


def test_an_answer_looks_at_the_picture_and_at_the_question():
    from panmodal.transformer import initialise

    family = other("BlipForQuestionAnswering")
    initialise(family.model, std=0.5)
    answers = {family.answer(p, t, max_tokens=8) for p in PICTURES for t in ("how many?", "where is the star?")}
    assert len(answers) > 2
    assert family.reply(pm.user(PICTURES[0], "how many?"), max_tokens=8).text == family.answer(
        PICTURES[0], "how many?", max_tokens=8
    )
    with pytest.raises(pm.InputError, match="one question about one picture, and these are 1 messages with 2 pictures"):
        family.reply(pm.user(*PICTURES[:2], "which?"))


def test_questions_about_pictures_of_ones_own_are_learned(tmp_path):
    """Two about each picture, which is encoded once; as LLaVA's JSON has them."""
    asked = {"how many?": ["one", "two", "three"], "what colour?": ["red", "blue", "green"]}
    records = []
    for i, picture in enumerate(PICTURES[:3]):
        picture.pixels.save(tmp_path / f"{i}.png")
        said = [text for question, answers in asked.items() for text in (question, answers[i])]
        turns = [
            {"from": ("human", "gpt")[n % 2], "value": "<image>\n" * (n == 0) + text} for n, text in enumerate(said)
        ]
        records.append({"id": str(i), "image": f"{i}.png", "conversations": turns})
    (tmp_path / "own.json").write_text(json.dumps(records))
    family = other("BlipForQuestionAnswering")
    source, seen = open_source(str(tmp_path / "own.json")), []
    hook = family.model.image.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    stage = Stage("own", "vqa", "", {"all": 3e-3}, steps=120, batch=3, warmup=0.1)
    losses = [step.loss for step in train(family, source, stage)]
    hook.remove()
    assert set(seen) == {3} and losses[-1] < 0.05 * losses[0]
    for question, answers in asked.items():
        assert [family.answer(picture, question) for picture in PICTURES[:3]] == answers


def test_what_cannot_be_learned_to_be_answered():
    objective, family = OBJECTIVES["vqa"], small("blip")
    for messages, told in (
        ((pm.user("how many?"), pm.assistant("two")), "0 pictures and messages of user, assistant"),
        ((pm.user(PICTURES[0], "how many?"),), "1 pictures and messages of user$"),
        ((pm.user(PICTURES[0], "one " * 100), pm.assistant("two")), "the model reads"),
    ):
        with pytest.raises(pm.InputError, match=told):
            objective.encode(family.processor, Sample(messages))
    sample = Sample((pm.user(PICTURES[0], "how many?"), pm.assistant("two")))
    batch = objective.batch(family.processor, [objective.encode(family.processor, sample)])
    with pytest.raises(pm.InputError, match="must be BlipForQuestionAnswering"):
        objective.loss(family.model, batch)


def test_a_verb_that_the_checkpoint_has_no_part_for():
    match, caption, answer = (
        other(f"BlipFor{kind}") for kind in ("ImageTextRetrieval", "ConditionalGeneration", "QuestionAnswering")
    )
    verbs = {
        "embed": lambda family: family.embed(TEXTS),
        "match": lambda family: family.match(PICTURES[0], TEXTS),
        "caption": lambda family: family.caption(PICTURES[0], max_tokens=2),
        "answer": lambda family: family.answer(PICTURES[0], "how many?", max_tokens=2),
    }
    for family, has in ((match, {"embed", "match"}), (caption, {"caption"}), (answer, {"answer"})):
        for verb, use in verbs.items():
            assert family.does(verb) == (verb in has)
            if verb in has:
                use(family)
            else:
                with pytest.raises(pm.InputError, match=f"which does not {verb}; Salesforce/blip-.* does"):
                    use(family)
    with pytest.raises(pm.CheckpointError, match="did you mean 'BlipForQuestionAnswering'"):
        other("BlipForQuestionAnswer")


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_with_all_heads_is_two_for_the_reference(tied, tmp_path):
    """What the encoder and the decoder share stands in the file twice, so that each is whole."""
    import transformers as tf

    from panmodal.families import BlipHybrid

    family = BlipHybrid.fresh({**CONFIGS["blip"], "tie_encoder_decoder": tied}, small("blip").checkpoint.files)
    model = family.model
    assert (model.decoder.body.blocks[0].mlp is model.text.body.blocks[0].mlp) == tied
    assert model.decoder.body.blocks[0].attn is not model.text.body.blocks[0].attn
    family.save(tmp_path)
    again = pm.load(tmp_path).model
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    images, batch = family.processor.pictures(PICTURES), family.processor.texts([TEXTS[0]] * 5)
    matcher, captioner = (
        kind.from_pretrained(tmp_path, output_loading_info=True)
        for kind in (tf.BlipForImageTextRetrieval, tf.BlipForConditionalGeneration)
    )
    for _, told in (matcher, captioner):
        assert not told["missing_keys"]
        assert not told["mismatched_keys"]
    with torch.no_grad():
        source = Source(model.image(images))
        fits = matcher[0].eval()(batch.ids, images).itm_score
        torch.testing.assert_close(model.match(source, batch.ids), fits, rtol=0, atol=1e-4)
        said = captioner[0].eval()(images, batch.ids).logits
        torch.testing.assert_close(model.decoder(batch.ids, source=source), said, rtol=0, atol=1e-4)
