from __future__ import annotations

import pytest

import panmodal as pm
from panmodal.playground import caption, make_scene, render
from panmodal.prompting.correction import CLAIMS, REWRITE, Checked, Correction, PlaygroundCaptions, Prompted

DETAILED = "on a grey background, a small red star at the top left, a large red star with the digit 4 on the right"


class Scripted:
    """Answers what is asked by the first of its rules whose words are in it."""

    interleaved, name = False, "scripted"

    def __init__(self, **rules):
        self.rules, self.heard = rules, []

    def reply_all(self, conversations, rows=16, **options):
        self.heard += [said[-1] for said in conversations]
        told = [next((a for words, a in self.rules.items() if words in said[-1].text), "yes") for said in conversations]
        return [pm.assistant(one) for one in told]

    def reply(self, said, **options): ...

    def stream(self, said, **options): ...


def correct(checker, writer, *texts):
    pictures = [[pm.Image(render(make_scene(0)))] for _ in texts]
    return Correction(checker, writer).correct(pictures, texts)


@pytest.mark.parametrize(
    ("text", "absent", "left"),
    [
        (DETAILED + ", a small pink cross at the bottom", "pink cross", DETAILED),
        (DETAILED, "red star", "on a grey background"),
        ("a red star, two pink crosses and three blue circles", "pink cross", "a red star and three blue circles"),
        ("a red star", "red star", ""),
        ("yes", "red star", "yes"),
    ],
)
def test_captions_of_the_playground(text, absent, left):
    (found,) = correct(Scripted(**{absent: "no"}), PlaygroundCaptions(), text)
    assert found.text == left
    assert {one.question for one in found.checked if not one.holds} <= {f"Is there a {absent} in the picture?"}


def test_what_holds_is_left_as_it_stands():
    texts = [caption(make_scene(seed, "test"), level) for seed in range(20) for level in ("brief", "detailed")]
    checker = Scripted()
    assert [one.text for one in correct(checker, PlaygroundCaptions(), *texts)] == texts
    assert all(asked.images for asked in checker.heard)


def test_a_chat_model_finds_claims_and_rewrites():
    writer = Scripted(
        **{"Ask about": "1. Is there a dog?\n2. Is it black?\nThat is all.", "Write again": " A brown dog.\n"}
    )
    checker = Scripted(black="No, it is brown.")
    found, same = correct(checker, Prompted(writer), "A black dog.", "A black dog, too.")
    assert found.text == same.text == "A brown dog."
    assert found.checked == (Checked("Is there a dog?", "yes"), Checked("Is it black?", "No, it is brown."))
    assert [one.holds for one in found.checked] == [True, False]
    assert [asked.text for asked in checker.heard[:1]] == [
        "Is there a dog? Answer yes or no. If no, say in a few words what is there instead."
    ]
    seen = "Is there a dog? yes\nIs it black? No, it is brown."
    assert [asked.text for asked in writer.heard] == [
        CLAIMS.format("A black dog."),
        CLAIMS.format("A black dog, too."),
        REWRITE.format("A black dog.", seen),
        REWRITE.format("A black dog, too.", seen),
    ]


def test_what_is_right_is_not_rewritten():
    writer = Scripted(**{"Ask about": "Is there a dog?"})
    (found,) = correct(Scripted(), Prompted(writer), "A dog.")
    assert found.text == "A dog." and len(writer.heard) == 1
