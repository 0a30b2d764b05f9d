"""The models that are shipped, and what README.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import panmodal as pm
from panmodal.checkpoints.hub import BUILT_IN, built_in
from panmodal.data.nlvr import LOOK
from panmodal.playground import make_scene, render
from panmodal.playground.statements import statement_sample
from panmodal.prompting.reasoning import ask_first

ROOT = Path(__file__).parents[1]
SCENE = ROOT / "examples" / "scene.png"


@pytest.fixture(scope="module")
def chat():
    return pm.load("tiny/chat")


def test_they_are_small_and_have_cards():
    assert built_in() == ["tiny/bind", "tiny/blip", "tiny/chat", "tiny/clip", "tiny/flamingo", "tiny/nlvr", "tiny/sam"]
    for name in built_in():
        assert sum(f.stat().st_size for f in (BUILT_IN / name).iterdir()) <= 12e6
        assert "playground only" in (BUILT_IN / name / "README.md").read_text()


def test_the_first_command_of_the_readme(command):
    result = command("ask", SCENE, "How many red circles are there?")
    assert (result.code, result.out, result.err) == (0, "2\n", "")


def test_it_compares_after_thinking(command):
    asked = ("ask", SCENE, "Are there fewer stars than circles?")
    assert command(*asked).out == "yes\n"
    assert command(*asked, "--thoughts").out == "<think> there are 1 star and 2 circles. </think> yes\n"


def test_a_picture_of_another_world_brings_a_hint(command, fixtures):
    photo = sorted((fixtures / "photos").glob("*.jpg"))[0]
    result = command("ask", photo, "What is in the picture?")
    assert result.code == 0
    assert result.err.count("\n") == 1 and "llava-hf/llava-1.5-7b-hf" in result.err


def test_clip_finds_captions():
    report = pm.evaluate(pm.load("tiny/clip"), "playground/retrieval", count=200)
    assert report.metrics["recall_at_1"] > 0.9


def test_clip_names_what_it_has_not_seen_together():
    clip = pm.load("tiny/clip")
    for split in ("test", "held-out"):
        assert pm.evaluate(clip, "playground/zero-shot", split=split, count=200).metrics["accuracy"] > 0.85


def test_nlvr_judges_statements_of_the_playground_and_those_that_people_wrote(nlvr_data):
    model = pm.load("tiny/nlvr")
    assert isinstance(model, pm.families.Chat)
    samples = [statement_sample(seed, "test") for seed in range(24)]
    asked = ask_first(model, [[pm.user(*s.images, s.messages[2].text)] for s in samples], LOOK)
    answers = [s.messages[3].text.rpartition(">")[2] for s in samples]
    assert sum(r.text == a for r, a in zip(model.reply_all(asked), answers, strict=True)) >= 19
    report = pm.evaluate(model, "nlvr", data=nlvr_data, split="hidden", count=48)
    assert report.metrics["accuracy"] > 0.6 and report.metrics["unparsed"] == 0


def test_sam_cuts_out_what_is_clicked_or_boxed_and_finds_the_rest():
    found = pm.evaluate(pm.load("tiny/sam"), "playground/segment", split="held-out", count=10).metrics
    assert found["mean_iou_one_click"] > 0.9
    assert found["mean_iou_box"] > 0.93
    assert found["mean_iou_three_clicks"] > 0.93
    assert found["iou_correlation"] > 0.6
    assert found["everything_recall_at_75"] > 0.95


def test_blip_says_what_a_picture_shows():
    assert pm.evaluate(pm.load("tiny/blip"), "playground/caption", count=60).metrics["accuracy"] > 0.9


def test_flamingo_learns_words_from_the_examples_in_its_prompt():
    flamingo = pm.load("tiny/flamingo")

    def accuracy(shots, pictures="own"):
        told = pm.evaluate(flamingo, "playground/new-words", split="held-out", shots=shots, count=48, pictures=pictures)
        return told.metrics["accuracy"]

    assert accuracy(4) > 0.9
    assert accuracy(0) < 0.1  # it cannot know
    assert accuracy(4, "swapped") < 0.25  # it looks at the examples' pictures


def test_bind_finds_pictures_and_words_by_sounds_that_it_never_heard_with_words():
    bind = pm.load("tiny/bind")
    for task, least in (("audio-image", 0.8), ("audio-text", 0.65), ("audio-plus-image", 0.5)):
        assert pm.evaluate(bind, f"playground/{task}", split="held-out", count=100).metrics["recall_at_1"] > least


def test_answers_owe_to_the_picture(chat):
    own = pm.evaluate(chat, "playground/vqa", count=280).metrics["accuracy"]
    swapped = pm.evaluate(chat, "playground/vqa", count=280, pictures="swapped").metrics["accuracy"]
    assert own > 0.85
    assert swapped < 0.4


def test_many_at_once_are_answered_as_one_by_one(chat):
    asked = [
        [pm.user(pm.Image(render(make_scene(seed, "test"))), question)]
        for seed in range(4)
        for question in ("How many objects are there?", "Describe the picture.")
    ]
    assert [r.text for r in chat.reply_all(asked, max_tokens=40)] == [chat.reply(a, max_tokens=40).text for a in asked]


@pytest.mark.parametrize("file", ["README.md", "README.zh-CN.md"])
def test_what_the_readme_shows_runs(file, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(ROOT)
    exec(block, {})
    assert capsys.readouterr().out == "2\n"


def test_both_readmes_say_the_same():
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "README.zh-CN.md")]
    figures = [re.findall(r"\d+\.\d+ %", text) for text in texts]
    commands = [re.findall(r"^(?:pip|panmodal) .*?(?=  |$)", text, re.M) for text in texts]
    assert figures[0] == figures[1]
    assert commands[0] == commands[1]
