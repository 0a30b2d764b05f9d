"""Questions of several steps: their steps told one by one, and as data to learn from."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from panmodal.playground import make_scene, questions
from panmodal.playground.questions import MULTI_STEP
from panmodal.playground.speech import WHY
from panmodal.playground.steps import check
from panmodal.playground.working import worked
from panmodal.training.run import SOURCES

SCENES = 1000  # of which one in 26 has a path


def test_steps_hold_and_questions_alone_tell_little():
    answers = defaultdict(Counter)
    for seed in range(SCENES):
        scene = make_scene(seed, "held-out")
        for question in questions(scene, len(MULTI_STEP), kinds=MULTI_STEP):
            steps = worked(question.program, scene)
            told = check(steps, scene)
            assert set(told) == {True} and len(told) == steps.count(".") > 1
            answers[question.kind][question.answer] += 1
    assert answers.keys() == set(MULTI_STEP)
    for kind, told in answers.items():
        assert max(told.values()) < 0.3 * told.total(), kind


def test_every_step_counts():
    scene = next(s for s in map(make_scene, range(500)) if questions(s, 1, kinds=("path",)))
    (question,) = questions(scene, 1, kinds=("path",))
    steps = worked(question.program, scene).split(". ")
    assert steps[-1].startswith("the ") and question.answer in steps[-1]
    for other in (make_scene(scene.seed + 1 + i) for i in range(20)):
        assert set(check(". ".join(steps), other)) != {True}


@pytest.mark.parametrize("way", ["direct", "thoughts", "two-stage"])
def test_ways_to_answer(way):
    asked, answered = zip(*(m.messages[i : i + 2] for m in map(SOURCES[f"playground/multi-step/{way}"].sample, range(30))
                            for i in range(0, len(m.messages), 2)), strict=True)  # fmt: skip
    whole = [said.text.endswith(".") for said in answered]  # steps alone
    opened = [said.text.startswith("<think>") for said in answered]
    assert any(whole) == (way == "two-stage") and all(opened) == any(opened) == (way == "thoughts")
    if way == "two-stage":
        assert whole == [said.text.endswith(WHY) for said in asked] and 0.6 < sum(whole) / len(whole) < 0.9
        assert all(said.text.endswith(".") for said, steps in zip(asked, whole, strict=True) if not steps)
    assert len(asked) > 80
