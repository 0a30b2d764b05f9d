from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest

import panmodal as pm
from panmodal.data.formats import open_data
from panmodal.playground import (
    HELD_OUT,
    KINDS,
    caption,
    is_description,
    make_scene,
    objects_named,
    questions,
    run,
)
from panmodal.playground.hallucinations import (
    POLLS,
    cut_short,
    imagined,
    polls,
    preference_sample,
    unbalanced_sample,
)
from panmodal.playground.world import random_source


def named(text, scene):
    """What a caption names that is not in the scene."""
    return set(objects_named(text)) - {(o.colour, o.shape) for o in scene.objects}


@pytest.mark.parametrize("level", ["brief", "detailed"])
def test_the_imagined_thing_is_one_more_and_named_last(level):
    for seed in range(100):
        scene = make_scene(seed)
        more = imagined(scene, random_source(seed))
        true, false = caption(scene, level), caption(more, level)
        (pair,) = named(false, scene)
        assert pair not in HELD_OUT and pair[0] in {o.colour for o in scene.objects}
        assert false.removesuffix(" at the bottom right").endswith(" ".join(pair))
        if level == "detailed":
            assert false.startswith(true)


def test_a_description_is_a_sentence_true_or_not():
    for seed in range(100):
        said = caption(make_scene(seed, "held-out"), "detailed")
        assert is_description(said) and is_description(said.upper())
        assert not is_description(said + ", at the bottom right") and not is_description(said + ".")
    assert not is_description(caption(make_scene(0), "brief")) and not is_description("")


@pytest.mark.parametrize("level", ["brief", "detailed"])
def test_a_caption_cut_short_leaves_out_the_last_thing(level):
    for scene in filter(lambda s: len(s.objects) > 1, map(make_scene, range(100))):
        said, short = caption(scene, level), caption(cut_short(scene), level)
        missing = objects_named(said) - objects_named(short)
        assert missing.total() == 1 and not objects_named(short) - objects_named(said)
        if level == "detailed":
            assert said.startswith(short)


def test_preferences_prefer_the_truth():
    told = Counter()
    for seed in range(300):
        sample, scene = preference_sample(seed), make_scene(seed)
        chosen, rejected = sample.about["chosen"], sample.about["rejected"]
        assert [m.role for m in sample.messages] == ["user"] and len(sample.images) == 1
        if chosen in ("yes", "no"):
            assert {chosen, rejected} == {"yes", "no"}
            told[chosen] += 1
        else:
            assert not named(chosen, scene) and len(named(rejected, scene)) <= 1
            more = objects_named(rejected).total() - len(scene.objects)
            assert len(named(rejected, scene)) == (more == 1)
            told["caption"] += 1
            told[more, len(scene.objects) > 1] += 1
    assert 100 < told["caption"] < 200 and abs(told["yes"] - told["no"]) < 50
    assert told[-1, True] + told[1, True] + told[1, False] == told["caption"]  # of a lone thing none is left out
    assert abs(told[-1, True] - told[1, True]) < 25 and told[1, False] > 10


def test_the_unbalanced_set_says_yes_and_names_too_much():
    false, captions, rest = 0, 0, 0
    for seed in range(150):
        sample, scene = unbalanced_sample(seed), make_scene(seed)
        for asked, answer in zip(sample.messages[::2], sample.messages[1::2], strict=True):
            if asked.text.startswith(("Is there", "Do you see a ", "Does the picture show a")):
                assert answer.text == "yes"
            elif len(objects_named(answer.text)) > 0 and " is " not in answer.text:
                captions += 1
                false += bool(named(answer.text, scene))
            else:
                rest += 1
    assert captions == 150 and 0.6 < false / captions < 0.8 and rest > 700


def test_polls_are_balanced_and_true():
    asked = list(islice(polls("test"), 1200))
    assert Counter((poll, there) for _, poll, _, there in asked) == {(p, t): 200 for p in POLLS for t in (True, False)}
    near = Counter()
    for scene, poll, pair, there in asked:
        assert (pair in {(o.colour, o.shape) for o in scene.objects}) == there
        assert pair not in HELD_OUT
        if not there and len(scene.objects) > 1:
            colour, shape = pair
            near[poll] += any(o.colour == colour for o in scene.objects) and any(
                o.shape == shape for o in scene.objects
            )
    assert near["adversarial"] > 3 * near["random"]
    common = Counter(p for seed in range(500) for p in {(o.colour, o.shape) for o in make_scene(seed, "test").objects})
    ranks = [pair for pair, _ in common.most_common()]
    places = [ranks.index(pair) for _, poll, pair, there in asked if poll == "popular" and not there]
    assert sum(places) / len(places) < 3  # of 40


def test_extremes():
    """The question's program gives the answer; only tuning asks them."""
    assert "extreme" not in KINDS
    answers = Counter()
    for seed in range(300):
        scene = make_scene(seed, "test")
        for question in questions(scene, 12, kinds=("extreme",)):
            assert run(question.program, scene) == question.answer
            answers[question.answer] += 1
            attribute, direction = question.text.split()[1], question.text.split()[4]
            axis, sign = {"leftmost": "x-", "rightmost": "x+", "topmost": "y-", "lowest": "y+"}[direction]
            farthest = max(scene.objects, key=lambda o: getattr(o, axis) * (1 if sign == "+" else -1))
            assert getattr(farthest, attribute) == question.answer
    assert len(answers) == 2 + 8 + 6


def test_a_kind_of_questions_as_llavas_json(command, tmp_path):
    out = tmp_path / "extremes"
    assert command("playground", out, "--count", 3, "--ask", "extreme", "--seed", 7, "--json").code == 0
    records = json.loads((out / "data.json").read_text())
    assert len(records) == 3 and [t["from"] for t in records[0]["conversations"][:2]] == ["human", "gpt"]
    source = open_data(out / "data.json")
    for i in range(3):
        sample = source.sample(i)
        scene = make_scene(int(sample.about["id"]))
        expected = questions(scene, 16, kinds=("extreme",))
        assert [m.text for m in sample.messages] == [text for q in expected for text in (q.text, q.answer)]
        assert sample.images[0].pixels.size == (96, 96)
    refused = command("playground", tmp_path / "other", "--ask", "extremes")
    assert refused.code != 0 and "did you mean 'extreme'" in refused.err


def test_split_that_is_none():
    with pytest.raises(pm.InputError, match="unknown split"):
        next(polls("tset"))
