"""Thoughts before right answers, as a data set."""

from __future__ import annotations

import io
import json

import pytest

import panmodal as pm
from panmodal.data.formats import open_data
from panmodal.data.records import to_sample
from panmodal.inference.rationales import rationales
from panmodal.playground.box_world import picture
from panmodal.playground.statements import statement_sample
from panmodal.training.run import Playground
from tests.families.small import small

REPLIES = ["<think>1 0</think>true", "true", "<think>2</think>false", "<think>never done", "<think>3</think> True."]


def test_right_answers_are_kept_with_their_thoughts(tmp_path, monkeypatch):
    lines = [{"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "true"}], "n": i}
             for i in range(5)]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    model, out = small("llama"), io.StringIO()
    monkeypatch.setattr(model, "reply_all", lambda said, rows, thoughts: [pm.assistant(r) for r in REPLIES])
    assert rationales(model, open_data(tmp_path / "data.jsonl"), out) == (2, 5)
    kept = [to_sample(json.loads(line), tmp_path) for line in out.getvalue().splitlines()]
    assert [s.about["n"] for s in kept] == [0, 4]
    assert [s.messages[1].text for s in kept] == [REPLIES[0], REPLIES[4]] and kept[1].messages[0].text == "4?"


def test_pictures_come_along_and_endless_data_needs_a_count(tmp_path, monkeypatch):
    model, out = small("llava"), io.StringIO()
    source = Playground(statement_sample)
    with pytest.raises(pm.InputError, match="has no end"):
        rationales(model, source, out)
    monkeypatch.setattr(model, "reply_all", lambda said, rows, thoughts: [pm.assistant("<think>0</think>true")] * 8)
    truths = [statement_sample(seed).messages[-1].text.endswith(">true") for seed in range(8)]
    assert rationales(model, source, out, count=8) == (sum(truths), 8) and 0 < sum(truths) < 8
    first = to_sample(json.loads(out.getvalue().splitlines()[0]), tmp_path)
    assert first.messages[:-1] == statement_sample(truths.index(True)).messages[:-1]
    assert first.messages[-1].text == "<think>0</think>true"


def test_what_is_asked_first_is_kept_with_its_answer(tmp_path, monkeypatch):
    model, out = small("llava"), io.StringIO()
    sample = pm.Sample((pm.user(pm.Image(picture(())), "Is it so?"), pm.assistant("true")))
    replies = iter(["a cat", "<think>1</think>true"])
    heard = []

    def reply_all(said, rows, **options):
        heard.extend(said)
        return [pm.assistant(next(replies))]

    monkeypatch.setattr(model, "reply_all", reply_all)
    assert rationales(model, Playground(lambda seed: sample), out, count=1, first="What is there?") == (1, 1)
    assert [[m.text for m in said] for said in heard] == [["What is there?"], ["What is there?", "a cat", "Is it so?"]]
    kept = to_sample(json.loads(out.getvalue()), tmp_path)
    assert [len(m.media) for m in kept.messages] == [1, 0, 0, 0] and kept.messages[3].text.endswith("true")
