"""Solved examples before the questions of published benchmarks and of the playground."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import panmodal as pm
import panmodal.cli.evaluate
from panmodal.evaluation.results import read_result
from tests.evaluation import layouts
from tests.families.small import small

PAGE = (Path(__file__).parents[2] / "docs" / "icl.md").read_text()


@pytest.fixture
def hearing(monkeypatch):
    """A model that reads pictures among words, and what it was asked."""
    model, heard = small("flamingo"), []
    monkeypatch.setattr(model.language, "context", 4096)

    def reply_all(conversations, rows, max_tokens):
        heard.extend(conversations)
        return [pm.assistant("yes")] * len(conversations)

    monkeypatch.setattr(model, "reply_all", reply_all)
    return model, heard


def vqa(folder):
    """Questions about a picture each: one to ask, and three to train on, of which the first has the asked one's
    picture."""
    for split, count in (("val2014", 1), ("train2014", 3)):
        notes = [
            {"question_id": i, "image_id": i, "answers": [{"answer": a} for a in ("a", f"{i}", f"{i}")]}
            for i in range(count)
        ]
        asked = [{"question_id": i, "question": f"What is {split} {i}?"} for i in range(count)]
        layouts.write(
            folder,
            {
                f"v2_mscoco_{split}_annotations.json": {"annotations": notes},
                f"v2_OpenEnded_mscoco_{split}_questions.json": {"questions": asked},
                **{f"{split}/COCO_{split}_{i:012d}.jpg": layouts.picture(40 * i) for i in range(count)},
            },
        )
    return folder


def test_examples_of_the_training_split_come_first(hearing, tmp_path):
    model, heard = hearing
    report = pm.evaluate(model, "vqav2", data=vqa(tmp_path / "data"), shots=2, out=tmp_path)
    (said,) = heard
    assert [m.role for m in said] == ["user", "assistant"] * 2 + ["user"]
    assert {m.text.split("?")[0] for m in said[:4:2]} == {
        "What is train2014 1",
        "What is train2014 2",
    }  # another picture
    assert {m.text for m in said[1::2]} == {"1", "2"} and all(len(m.images) == 1 for m in said[::2])
    assert said[-1].text.startswith("What is val2014 0?")
    made = read_result(tmp_path / "vqav2.json").provenance
    assert (made["shots"], made["retriever"]) == (2, "random") and made["examples"] and "embedder" not in made
    assert pm.evaluate(model, "vqav2", data=tmp_path / "data", shots=0).metrics == report.metrics
    assert len(heard[-1]) == 1


def test_the_likest_stands_last(hearing, tmp_path):
    model, heard = hearing
    pm.evaluate(model, "vqav2", data=vqa(tmp_path), shots=2, retriever="text", embedder="tiny/clip")
    assert len(heard[-1]) == 5


def test_the_command_of_the_page(command, hearing, tmp_path, monkeypatch):
    """A curve of the results that the page's command leaves."""
    model, _ = hearing
    vqa(tmp_path / "VQA")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(panmodal.cli.evaluate, "load_model", lambda *_: model)
    (shown,) = re.findall(r"^    panmodal (eval .* --out .*)$", PAGE, re.MULTILINE)
    for shots in (0, 1, 2):
        line = shown.replace("--shots 4", f"--shots {shots}").replace("image-4", f"image-{shots}")
        told = command(*line.split())
        assert told.code == 0, told.err
    assert command("report", *(f"results/image-{shots}" for shots in (0, 1, 2))).code == 0
    assert "over examples in the prompt" in Path("report.html").read_text()


def test_the_playgrounds_questions(hearing):
    model, heard = hearing
    pm.evaluate(model, "playground/extremes", count=4, shots=1)
    assert all(len(said) == 3 and said[0].images and said[1].text for said in heard)


def test_what_cannot_be_shown(hearing, tmp_path):
    model, _ = hearing
    data = vqa(tmp_path / "vqa")
    with pytest.raises(pm.InputError, match="can be shown 2 of 3 examples; lower --shots"):
        pm.evaluate(model, "vqav2", data=data, shots=3)
    with pytest.raises(pm.InputError, match="the examples' split is the one that is asked, 'train2014'"):
        pm.evaluate(model, "vqav2", data=data, split="train2014", shots=1)
    with pytest.raises(pm.InputError, match="vqav2 has no split 'train'; did you mean 'train2014'"):
        pm.evaluate(model, "vqav2", data=data, shots=1, shots_split="train")
    with pytest.raises(pm.InputError, match="pope has no split to train on; name one by --shots-split: all, adver"):
        pm.evaluate(model, "pope", data=layouts.pope(tmp_path / "pope"), shots=1)
    with pytest.raises(pm.InputError, match="a retriever and a split of examples are for shots"):
        pm.evaluate(model, "vqav2", data=data, retriever="image")
    with pytest.raises(pm.InputError, match="playground/pope is not asked with examples"):
        pm.evaluate(model, "playground/pope", shots=1)
    model.language.context = 40
    with pytest.raises(pm.InputError, match="has room for 0 of 2 examples; lower --shots"):
        pm.evaluate(model, "vqav2", data=data, shots=2)
