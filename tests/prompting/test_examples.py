"""Examples before a question: which are chosen, in what order, and how many there is room for."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import panmodal as pm
from panmodal.errors import InputError
from panmodal.prompting.examples import Examples, prompt
from panmodal.prompting.reasoning import ask_first
from tests.families.small import small


def shade(*levels: int) -> pm.Image:
    return pm.Image(np.full((8, 8, 3), levels, np.uint8))


def sample(picture: pm.Image, question: str, answer: str) -> pm.Sample:
    return pm.Sample((pm.user(picture, question), pm.assistant(answer)))


class Eye:
    """Embeds a picture as its mean colour, and a text as the counts of three letters."""

    def does(self, verb: str) -> bool:
        return verb == "embed"

    def embed(self, items, truncate=False):
        rows = [
            [float(item.count(c)) for c in "abc"] if isinstance(item, str) else np.asarray(item.pixels).mean((0, 1))
            for item in items
        ]
        return normalize(torch.tensor(np.array(rows), dtype=torch.float32), dim=-1)


STORE = [
    sample(shade(200, 0, 0), "a", "red"),
    sample(shade(200, 60, 0), "b", "orange"),
    sample(shade(200, 80, 0), "c", "orange"),
    sample(shade(0, 200, 0), "abc", "green"),
    sample(shade(0, 0, 200), "aab", "blue"),
]
QUERY = sample(shade(220, 20, 0), "aab", "?")


def answers(chosen):
    return [s.messages[-1].text for s in chosen]


def test_the_likest_stands_last():
    by_image = Examples(STORE, "image", Eye())
    assert by_image.choose(QUERY, 3) == [STORE[2], STORE[1], STORE[0]]
    assert Examples(STORE, "text", Eye()).choose(QUERY, 2) == [STORE[0], STORE[4]]
    mixed = Examples(STORE, "mixed", Eye()).choose(QUERY, 5)  # the picture's cosine and the text's, weighed alike
    eye = Eye()
    pictures, texts = (eye.embed([f(s) for s in STORE]) @ eye.embed([f(QUERY)])[0]
                       for f in (lambda s: s.images[0], lambda s: s.messages[0].text))  # fmt: skip
    assert mixed == [STORE[i] for i in (pictures + texts).argsort().tolist()]


def test_diversity_takes_what_is_unlike_those_before():
    plain = Examples(STORE, "image", Eye()).choose(QUERY, 2)
    diverse = Examples(STORE, "image", Eye(), diversity=0.6).choose(QUERY, 2)
    assert answers(plain) == ["orange", "red"] and diverse[1] == plain[1] and answers(diverse)[0] in ("green", "blue")


@pytest.mark.parametrize("retriever", ["random", "balanced", "image", "mixed"])
def test_the_query_and_its_near_copies_are_never_among_them(retriever):
    near = sample(shade(219, 23, 4), "another question", "a copy")
    store = [*STORE, QUERY, near]
    for seed in range(20):
        chosen = Examples(store, retriever, Eye()).choose(QUERY, 6, seed)
        assert len(chosen) == 5 and near not in chosen and QUERY not in chosen


def test_chance_follows_the_seed_and_a_balanced_choice_has_every_answer():
    many = [sample(shade(10 * i, 0, 0), "a", "yes" if i else "no") for i in range(20)]
    other = sample(shade(0, 255, 255), "a", "?")
    random, balanced = Examples(many), Examples(many, "balanced")
    assert random.choose(other, 4, 3) == random.choose(other, 4, 3) != random.choose(other, 4, 4)
    for seed in range(10):
        assert Counter(answers(balanced.choose(other, 2, seed))) == {"yes": 1, "no": 1}
    assert any(answers(random.choose(other, 2, seed)) == ["yes", "yes"] for seed in range(10))


def test_what_cannot_be_chosen_by():
    with pytest.raises(InputError, match="unknown retriever 'imag'.*image"):
        Examples(STORE, "imag")
    with pytest.raises(InputError, match="needs a model that embeds"):
        Examples(STORE, "image")
    with pytest.raises(InputError, match="compares pictures, and a sample has none"):
        Examples([pm.Sample((pm.user("a"), pm.assistant("b")))], "image", Eye()).choose(QUERY, 1)
    with pytest.raises(InputError, match="diversity is 1"):
        Examples(STORE, "image", Eye(), diversity=1.0)


def test_a_prompt_has_whole_examples_from_the_last_as_many_as_there_is_room_for():
    model = small("flamingo")
    query = list(QUERY.messages[:1])
    whole, shown = prompt(model, STORE, query, 4)
    assert shown == 5 and len(whole) == 11 and sum(len(m.images) for m in whole) == 6
    model.language.context = len(model.processor.expand([*STORE[3].messages, *STORE[4].messages, *query], True).ids) + 4
    cut, shown = prompt(model, STORE, query, 4)
    assert shown == 2 and cut == [*STORE[3].messages, *STORE[4].messages, *query]
    assert prompt(model, STORE, query, 5)[1] == 1


def test_a_model_of_single_pictures_gets_the_examples_texts():
    model = small("llava")
    said, shown = prompt(model, STORE[:2], list(QUERY.messages[:1]), 4)
    assert shown == 2 and [len(m.images) for m in said] == [0, 0, 0, 0, 1]
    assert [m.text for m in said] == ["a", "red", "b", "orange", "aab"]
    assert small("flamingo").interleaved and not model.interleaved


def test_pictures_are_asked_about_first(monkeypatch):
    model = small("llava")
    monkeypatch.setattr(model, "reply_all", lambda said, rows, **options: [pm.assistant("a dog")] * len(said))
    (said,) = ask_first(model, [[pm.user("hello"), pm.assistant("hi"), pm.user(shade(1, 2, 3), "Is it?")]], "What?")
    assert [m.text for m in said] == ["hello", "hi", "What?", "a dog", "Is it?"]
    assert [len(m.media) for m in said] == [0, 0, 1, 0, 0]
