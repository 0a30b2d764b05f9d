"""Steps of rationales against the scenes that they are about."""

from __future__ import annotations

from collections import Counter

import pytest

from panmodal.playground import KINDS, Object, Scene, make_scene, questions
from panmodal.playground.questions import MORE_KINDS
from panmodal.playground.steps import check

RED, BLUE = (222, 52, 50), (52, 98, 224)
SCENE = Scene(
    (
        Object("large", "red", "circle", 20, 20, 12, RED, "7"),
        Object("small", "red", "cross", 50, 80, 7, RED),
        Object("small", "blue", "cross", 80, 50, 7, BLUE),
    ),
    "white", {}, "test", 0,
)  # fmt: skip


def test_true_rationales_hold_and_are_of_no_other_scene():
    kinds = (*KINDS, *MORE_KINDS)
    asked, elsewhere = Counter[str](), Counter[str]()
    for seed in range(60):
        scene, other = make_scene(seed, "held-out"), make_scene(seed + 1, "held-out")
        for question in questions(scene, len(kinds), kinds=kinds):
            assert set(check(question.rationale, scene)) == {True}, question.rationale
            asked[question.kind] += 1
            elsewhere[question.kind] += set(check(question.rationale, other)) == {True}
    assert asked.keys() == set(kinds)
    assert all(elsewhere[kind] < 0.6 * asked[kind] for kind in kinds)


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ("there is no star.", [True]),
        ("there is no red cross.", [False]),
        ("there are crosses on the right and at the bottom. that makes 2.", [True, True]),
        ("there are crosses on the right and at the bottom. that makes 3.", [True, False]),
        ("there are crosses on the right. that makes 2.", [False, True]),
        ("there is an object with the digit 7 at the top left.", [True]),
        ("that makes 2.", [False]),
        ("the circle is at the top left. the circle is on the left.", [True, False]),
        ("the circle is at 23 17 and the blue cross at 80 50.", [True]),
        ("the circle is at 25 20.", [False]),
        ("the cross is at 80 50.", [False]),
        ("there are 2 crosses and 1 circle. there are 2 red objects and 2 circles.", [True, False]),
        ("the circle is red and the blue cross blue not red.", [True]),
        ("the circle is red and the small red object red.", [True]),
        ("the circle is red and the blue cross red.", [False]),
        ("the circle is red and the blue cross blue.", [False]),
        ("right of the circle there are objects at 80 51 and at 50 80. the topmost is the blue cross.", [True, True]),
        ("right of the circle there are objects at 80 51. the topmost is the red circle.", [False, False]),
        ("above the circle there are objects at 80 51. the topmost is the red circle.", [False, False]),
        ("the lowest is the red cross at 50 80. the topmost is the red cross.", [True, False]),
        ("the circle is at 20 20. the rightmost below it is the blue cross at 80 50.", [True, True]),
        ("the blue cross is at 80 50. the lowest left of it is the circle.", [True, False]),
        ("2 and 1 makes 3. 2 and 1 makes 4.", [True, False]),
        ("3 is 1 more than 2. 3 is 2 more than 2.", [True, False]),
        ("the background is white. the background is black.", [True, False]),
        ("<think> The background is  white. </think> I think so. It is 7", [True, None, None]),
        ("that makes 2. 2\nyes", [False]),
        ("", []),
    ],
)
def test_each_form(said, holds):
    assert check(said, SCENE) == holds
