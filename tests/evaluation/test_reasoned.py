"""Tasks asked with a chain of thought."""

from __future__ import annotations

import json

import pytest

import panmodal as pm
from panmodal.evaluation.reasoned import read
from panmodal.evaluation.results import read_result
from panmodal.playground import make_scene, questions, render
from panmodal.playground.questions import MULTI_STEP
from panmodal.prompting.reasoning import Reasoning
from tests.families.small import small

COUNT = 8


@pytest.fixture
def thinker(monkeypatch):
    """A model that knows every rationale; `said` makes a reply of that and the answer, and it hears the options."""

    def make(said):
        known = {}
        for seed in range(200):
            scene = make_scene(seed, "test")
            for kind in MULTI_STEP:
                for question in questions(scene, 1, kinds=(kind,)):
                    known[pm.Image(render(scene)).key, question.text] = question
        model, heard = small("llava"), []

        def reply_all(conversations, rows, **options):
            found = []
            for conversation in conversations:
                heard.append((conversation[-1].text, options))
                text = conversation[-1].text.partition("? ")[0].rstrip("?") + "?"
                question = known[conversation[0].images[0].key, text]
                found.append(pm.assistant(said(question.rationale, question.answer)))
            return found

        monkeypatch.setattr(model, "reply_all", reply_all)
        return model, heard

    return make


def test_who_knows_it_all(thinker):
    model, heard = thinker(lambda why, answer: f"{why} {answer}")
    report = pm.evaluate(model, "playground/multi-step", count=COUNT, cot=Reasoning())
    assert report.examples == COUNT and all(text.endswith("? Let's think step by step.") for text, _ in heard)
    by_kind = dict.fromkeys(MULTI_STEP, 1)
    assert {name: value for name, value in report.metrics.items() if name != "question_only"} == {
        "accuracy": 1, "by_kind": by_kind, "steps_right": 1, "steps_right_if_answered": 1, "steps_unparsed": 0,
        "grounded": 1, "unparsed": 0,
    }  # fmt: skip


def test_who_is_right_for_wrong_reasons(thinker):
    model, _ = thinker(lambda why, answer: f"<think>there is no object. I {why}</think> The answer is {answer}.")
    metrics = pm.evaluate(model, "playground/multi-step", count=COUNT, cot=Reasoning("thoughts")).metrics
    assert metrics["accuracy"] == 1 and metrics["grounded"] == 0 and metrics["steps_right"] < 0.8
    assert metrics["steps_unparsed"] == COUNT


def test_what_cannot_be_read_is_wrong_and_counted(thinker):
    model, heard = thinker(lambda why, answer: "It depends.")
    metrics = pm.evaluate(model, "playground/multi-step", count=COUNT, cot=Reasoning(votes=3)).metrics
    assert metrics["accuracy"] == 0 and metrics["unparsed"] == COUNT and metrics["unparsed_votes"] == 3 * COUNT
    assert "steps_right" not in metrics and {options["seed"] for _, options in heard} == {0, 1, 2}


def test_the_playgrounds_answers():
    assert read("that makes 2. 2") == ("that makes 2", "2")
    assert read("so it is. The answer is Bottom Left.") == ("so it is.", "bottom left")
    assert read("It depends") == ("", None) and read("") == ("", None)


def test_a_published_benchmark(tmp_path, monkeypatch):
    problem = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "image": None, "hint": "",
               "subject": "natural science", "grade": "grade2"}  # fmt: skip
    (tmp_path / "problems.json").write_text(json.dumps({"1": problem}))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": ["1"]}))
    model, heard = small("llava"), []

    def reply_all(conversations, rows, **options):
        heard.extend(c[-1].text for c in conversations)
        return [pm.assistant("It is so. The answer is (B).")] * len(conversations)

    monkeypatch.setattr(model, "reply_all", reply_all)
    report = pm.evaluate(model, "scienceqa", data=tmp_path, cot=Reasoning(), out=tmp_path / "out")
    assert report.metrics["accuracy"] == 1
    (said,) = read_result(tmp_path / "out" / "scienceqa.json").answers
    assert said.answer == {"rationale": "It is so.", "answer": "B"} and said.score is True
    assert heard == ["Which?\nA. a\nB. b Let's think step by step."]
    with pytest.raises(pm.InputError, match="few-shot needs examples"):
        pm.evaluate(model, "scienceqa", data=tmp_path, cot=Reasoning("few-shot"))


def test_thoughts_are_kept(thinker, tmp_path, monkeypatch):
    """Of every question the rationale, the answer and the votes are in the result, and what is there is not asked
    again."""
    model, heard = thinker(lambda why, answer: f"{why} {answer}" if len(heard) % 3 else "It depends.")
    how = {"count": COUNT, "cot": Reasoning(votes=3), "out": tmp_path}
    report = pm.evaluate(model, "playground/multi-step", **how)
    result = read_result(tmp_path / "playground-multi-step.json")
    assert result.report == report and result.provenance["cot"]["votes"] == 3
    for one in result.answers:
        assert one.answer["answer"] == one.truth and one.answer["rationale"] and one.answer["votes"].count(None) == 1
        assert one.said.startswith("rationale: ") and "votes: " in one.said
    monkeypatch.setattr(model, "reply_all", lambda *_, **__: pytest.fail("it is asked again"))
    (tmp_path / "playground-multi-step.json").unlink()
    assert pm.evaluate(model, "playground/multi-step", **how) == report
    with pytest.raises(pm.InputError, match="made with cot.votes 3, and this would be with 1"):
        pm.evaluate(model, "playground/multi-step", **{**how, "cot": Reasoning()})


def test_examples_with_rationales(monkeypatch):
    model, heard = small("flamingo"), []
    monkeypatch.setattr(model.language, "context", 1024)
    monkeypatch.setattr(
        model, "reply_all", lambda said, rows, **o: heard.extend(said) or [pm.assistant("yes")] * len(said)
    )
    pm.evaluate(model, "playground/multi-step", count=2, cot=Reasoning("few-shot", shots=2, trigger="Why?"))
    for conversation in heard:
        assert [m.text.endswith(" Why?") for m in conversation] == [True, False, True, False, True]
        assert all(len(m.text.split(". ")) > 1 for m in conversation[1::2])


def test_mistakes(command):
    why = command("eval", "tiny/chat", "playground/vqa", "--cot", "zeroshot")
    assert why.code and "unknown way to reason 'zeroshot'; did you mean 'zero-shot'" in why.err
    why = command("eval", "tiny/chat", "playground/vqa", "--votes", 3)
    assert why.code and "--trigger and --votes are for a chain of thought" in why.err
    with pytest.raises(
        pm.InputError, match=r"playground/pope is not asked with a chain of thought; known: playground/vqa"
    ):
        pm.evaluate(small("llava"), "playground/pope", cot=Reasoning())
