from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import IGNORED, Processor
from panmodal.data.sample import Image, assistant, system, user
from panmodal.data.template import PLAIN, ChatTemplate
from panmodal.errors import InputError
from panmodal.families.llava import VICUNA
from panmodal.playground.speech import SPECIAL, tokenizer

VECTORS = 4
TEMPLATES = {
    "vicuna": VICUNA,
    "chatml": (
        "{% for m in messages %}<|user|>{{ m['role'] }} {{ m['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<|user|>assistant {% endif %}"
    ),
}


def processor(template="vicuna", context=400) -> Processor:
    words = tokenizer()
    return Processor(
        words,
        ImageTransform(8, 8),
        ChatTemplate(TEMPLATES.get(template, template), special=words.special),
        context=context,
        image_token=words.id_of("<image>"),
        image_vectors=VECTORS,
    )


def picture(n=0):
    return Image(np.full((8, 8, 3), n, np.uint8))


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_answers_are_what_is_learned(template):
    p = processor(template)
    encoded = p.encode([user(picture(), "how many?"), assistant("two"), user("where?"), assistant("top left")])
    learned = p.tokenizer.decode([i for i, learn in zip(encoded.ids, encoded.learned, strict=True) if learn])
    assert learned == "two top left"
    assert encoded.labels.count(p.tokenizer.eos_id) == 2  # and so are their ends
    assert encoded.ids.count(p.image_token) == VECTORS


@pytest.mark.parametrize("template", TEMPLATES)
def test_training_and_use_see_the_same_tokens(template):
    p = processor(template)
    turns = [system("be brief"), user(picture(), "how many?"), assistant("two"), user("where?"), assistant("left")]
    whole = p.encode(turns)
    for i, turn in enumerate(turns):
        if turn.role == "assistant":
            asked = p.encode(turns[:i], reply=True)
            assert whole.ids[: len(asked.ids)] == asked.ids
            assert whole.learned[len(asked.ids)] and not any(asked.learned)


words = st.text(st.sampled_from("abc red 12,.?"), max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), words, words), min_size=1, max_size=4), st.booleans())
def test_pictures_and_placeholders_always_match(turns, left):
    p = processor()
    conversation = []
    for count, question, answer in turns:
        conversation += [user(*[picture(i) for i in range(count)], question), assistant(answer)]
    encoded = p.encode(conversation)
    batch = p.batch([encoded, p.encode([user("hi"), assistant("x")])], left)
    count = sum(count for count, _, _ in turns)
    assert int((batch.ids == p.image_token).sum()) == VECTORS * count
    assert (0 if batch.images is None else len(batch.images)) == count
    assert batch.ids[0][batch.pad[0]].tolist() == encoded.ids if batch.pad is not None else True
    real = batch.labels[0][batch.pad[0]] if batch.pad is not None else batch.labels[0]
    assert [label for label in real.tolist() if label != IGNORED] == [
        i for i, learn in zip(encoded.ids, encoded.learned, strict=True) if learn
    ]


def test_a_placeholder_in_the_text_is_no_picture():
    p = processor()
    with pytest.raises(InputError, match="0 pictures and its text 1 placeholders"):
        p.encode([user("look at <image>"), assistant("yes")])
    with pytest.raises(InputError, match="1 pictures and its text 2 placeholders"):
        p.encode([user(picture(), "look at <image>")], reply=True)


def test_the_context_is_a_limit_with_numbers():
    with pytest.raises(InputError, match=r"30 tokens \(4 of them for 1 pictures\) and the model reads 20"):
        processor(context=20).encode([user(picture(), "is the red star left of the blue square?")], reply=True)


def test_a_template_that_rewrites_earlier_turns_cannot_be_learned_from():
    forgetful = "{% for m in messages %}{{ m['content'] if loop.last else '…' }}</s>{% endfor %}"
    with pytest.raises(InputError, match="rewrites earlier turns"):
        processor(forgetful).encode([user("a"), assistant("b"), user("c"), assistant("d")])


def test_empty_answers_teach_nothing():
    with pytest.raises(InputError, match="nothing to learn"):
        processor(PLAIN).encode([user("a"), assistant("")])


def test_texts_are_padded_on_the_right_or_to_a_fixed_length():
    p = Processor(tokenizer(), context=12)
    batch = p.texts(["red", "a large red circle"])
    assert batch.pad.tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    fixed = Processor(tokenizer(), context=12, fixed=True).texts(["red", "a large red circle"])
    assert fixed.ids.shape == (2, 12) and fixed.pad is None


def test_a_long_text_is_an_error_or_cut():
    p = Processor(tokenizer(), context=8)
    with pytest.raises(InputError, match="22 tokens and the model reads 8"):
        p.texts(["red " * 20])
    ids = p.texts(["red " * 20], truncate=True).ids[0].tolist()
    assert len(ids) == 8 and ids[-1] == p.tokenizer.id_of(SPECIAL["eos_token"])


def test_what_a_model_lacks_is_said():
    with pytest.raises(InputError, match="tokenizer"):
        Processor().texts(["hi"])
    with pytest.raises(InputError, match="preprocessor_config"):
        Processor().pictures([picture()])
