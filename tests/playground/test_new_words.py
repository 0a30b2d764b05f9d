"""Lessons in new words: what they give away, and what they do not."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from panmodal.playground import HELD_OUT, SEEN, SPLITS
from panmodal.playground.new_words import (
    KINDS,
    NEW_WORDS,
    SAMPLES,
    Lesson,
    domain_sample,
    few_words_sample,
    new_words_sample,
    tokenizer,
)


def pair(example):
    (thing,) = example.scene.objects
    return thing.colour, thing.shape


@pytest.mark.parametrize("split", SPLITS)
def test_a_lesson(split):
    for seed in range(200):
        lesson = Lesson(seed, split)
        shots = lesson.shots(8)
        assert [e.words for e in Lesson(seed, split).shots(3)] == [e.words for e in shots[:3]]  # the same for any K
        assert (pair(lesson.query) in HELD_OUT) == (split == "held-out")
        assert not HELD_OUT.intersection(map(pair, shots))
        assert pair(lesson.query) not in map(pair, shots)
        for attribute, asked in enumerate(pair(lesson.query)):
            for some in (shots[:4], shots[4:]):  # each word once a round
                assert len({pair(e)[attribute] for e in some}) == len({e.words[attribute] for e in some}) == KINDS
                assert asked in {pair(e)[attribute] for e in some}
        names = {(a, e.words[a]) for e in (*shots, lesson.query) for a in (0, 1)}
        assert len(names) == len({word for _, word in names}) == 2 * KINDS  # a word has one meaning
        assert {word for _, word in names} <= set(NEW_WORDS)


def test_words_mean_something_else_in_every_lesson():
    lessons = [Lesson(seed, split) for split in SPLITS for seed in range(400)]
    meanings = Counter((word, name) for lesson in lessons for name, word in lesson.words.items())
    assert len(meanings) == len(NEW_WORDS) * (8 + 6)
    assert len({str(lesson.words) for lesson in lessons}) == len(lessons)


def test_no_word_is_likelier_to_be_right():
    """Neither a word, nor where among the examples it came first."""
    words, places = Counter(), Counter()
    for seed in range(1200):
        lesson = Lesson(seed, "test")
        words.update(lesson.query.words)
        said = [e.words[0] for e in lesson.shots(4)]
        places[said.index(lesson.query.words[0])] += 1
    assert max(words.values()) < 1.5 * min(words.values())
    assert max(places.values()) < 1.3 * min(places.values())


def test_a_lesson_to_learn_from():
    for seed in range(60):
        sample = new_words_sample(seed)
        text = [m.text for m in sample.messages]
        assert len(sample.images) == 13
        assert [m.role for m in sample.messages] == ["user"] * KINDS + ["user", "assistant"] * 9
        given = [set(re.match(r"this is a (\w+) (\w+)[.]<.endofchunk.>", t).groups()) for t in text[:KINDS]]
        for answer in text[KINDS + 1 :: 2]:  # can be known from what is given
            assert set(answer.strip(".").split()[-2:]) <= set().union(*given)
    assert [m.text for m in new_words_sample(0).messages] != [m.text for m in new_words_sample(0, "test").messages]


def test_names_may_be_kept_and_pictures_told():
    kept = Counter()
    for seed in range(200):
        sample = SAMPLES["playground/new-words-text"](seed)
        assert not sample.images
        colour, shape, said = re.match(r"(\w+) (\w+). this is a (.*)[.]<", sample.messages[0].text).groups()
        kept[said.split()[0] == colour, said.split()[1] == shape] += 1
    assert len(kept) == 4 and min(kept.values()) > 30


def test_every_word_is_one_token():
    words = tokenizer()
    for name in SAMPLES:
        for message in SAMPLES[name](0).messages:
            pieces = words.backend.encode(message.text, add_special_tokens=False).tokens
            assert not [p for p in pieces if p.startswith("##") or p == "<unk>"]
    assert len(words.encode("this is a dax wug.<|endofchunk|>", special=False)) == 7
    assert words.decode(words.encode("this is a dax wug.")) == "this is a dax wug."


def test_a_lesson_of_few_examples_asks_about_what_they_show():
    given = Counter()
    for seed in range(60):
        sample = few_words_sample(seed)
        known = [m.text for m in sample.messages if "<|endofchunk|>" in m.text]
        words = [
            set(column) for column in zip(*(re.findall(r"a (\w+) (\w+)\.", text)[0] for text in known), strict=True)
        ]
        answers = [m.text for m in sample.messages if m.role == "assistant"]
        assert len(answers) == 9 and sample == few_words_sample(seed)
        for answer in answers:
            assert all(word in some for word, some in zip(answer.rstrip(".").split()[-2:], words, strict=True))
        given[len(known)] += 1
    assert set(given) == {1, 2, 3}


def test_on_each_background_words_are_others():
    calls: dict[tuple[str, str], set[str]] = {}
    for seed in range(600):
        sample = domain_sample(seed, SEEN)
        assert sample.messages[1].text == f"this is a {' '.join(sample.about['words'])}."
        background = str(sample.images[0].pixels.getpixel((0, 0)))
        calls.setdefault((background, sample.about["words"]), set()).add(sample.messages[1].text)
    assert len({background for background, _ in calls}) == 3
    assert len(calls) == 3 * len(SEEN)  # every pair has one name on each
