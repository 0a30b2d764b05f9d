"""What an evaluation leaves: kept answers, results, the page of them, and comparisons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import panmodal as pm
from panmodal.evaluation import evaluate
from panmodal.evaluation.compare import compare, mcnemar
from panmodal.evaluation.page import page
from panmodal.evaluation.results import Answered, Result, read_result, read_results
from tests.evaluation import layouts
from tests.families.small import small

TASK, COUNT = "playground/vqa", 70
PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def model():
    return small("llava", std=0.3)


@pytest.fixture
def asked(model, monkeypatch):
    """How many questions the model was asked; it is killed before more than `limit`."""
    count = {"asked": 0, "limit": 10_000}

    def reply_all(conversations, rows, max_tokens):
        count["asked"] += len(conversations)
        if count["asked"] > count["limit"]:
            raise Killed
        return [pm.assistant("yes" if "Is" in said[0].text else "2") for said in conversations]

    monkeypatch.setattr(model, "reply_all", reply_all)
    return count


def test_a_result_says_how_it_was_made(model, asked, tmp_path):
    report = evaluate(model, TASK, count=COUNT, out=tmp_path)
    result = read_result(tmp_path / "playground-vqa.json")
    assert result.report == report and report == evaluate(model, TASK, count=COUNT)
    assert result.provenance["model"]["fingerprint"] == model.fingerprint()
    assert result.provenance["preprocessing"] == model.checkpoint.image_processor
    assert result.provenance["decoding"]["max_tokens"] == 64 and result.provenance["versions"]["panmodal"]
    assert len(result.answers) == COUNT and result.metric == "accuracy"
    assert sum(one.score for one in result.answers) / COUNT == pytest.approx(report.metrics["accuracy"])
    assert all(one.score is (one.answer == one.truth) for one in result.answers)
    assert pm.Image(tmp_path / result.answers[0].media[0]).pixels.size == (96, 96)


def test_a_stopped_evaluation_goes_on(model, asked, tmp_path):
    evaluate(model, TASK, count=COUNT, out=tmp_path / "whole")
    asked |= {"asked": 0, "limit": 40}
    with pytest.raises(Killed):
        evaluate(model, TASK, count=COUNT, out=tmp_path / "stopped")
    lines = tmp_path / "stopped" / "playground-vqa.jsonl"
    assert not lines.with_suffix(".json").exists()
    lines.write_bytes(lines.read_bytes() + b'{"id": "9')  # as it was killed
    asked |= {"asked": 0, "limit": COUNT}
    evaluate(model, TASK, count=COUNT, out=tmp_path / "stopped")
    assert asked["asked"] == COUNT - 32
    evaluate(model, TASK, count=COUNT, out=tmp_path / "stopped")
    assert asked["asked"] == COUNT - 32
    for name in ("playground-vqa.json", "playground-vqa.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_made_in_another_way_is_not_mixed(model, asked, tmp_path):
    evaluate(model, TASK, count=8, out=tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.glob("*.json*")}
    with pytest.raises(pm.InputError, match='made with pictures "own", and this would be with "swapped"'):
        evaluate(model, TASK, count=8, pictures="swapped", out=tmp_path)
    with pytest.raises(pm.InputError, match="made with data "):
        evaluate(model, TASK, count=9, out=tmp_path)
    assert before == {file: file.read_bytes() for file in tmp_path.glob("*.json*")}
    (tmp_path / "playground-vqa.json").unlink()
    (tmp_path / "playground-vqa.jsonl").write_text("mine\n")
    with pytest.raises(pm.InputError, match="has something else than answers"):
        evaluate(model, TASK, count=8, out=tmp_path)
    (tmp_path / "playground-vqa.json").write_text('{"model": "x"}')
    with pytest.raises(pm.InputError, match=r"is no result of `panmodal eval --out`: of task, Field required"):
        read_results([tmp_path])


KEPT = {
    "playground/pope": ("llava", 36),
    "playground/chair": ("llava", 3),
    "playground/new-words": ("flamingo", 3),
    "playground/domain-mix": ("flamingo", 2),
    "playground/match": ("blip", 4),
    "playground/caption": ("blip", 3),
    "playground/retrieval": ("blip", 100),
    "playground/zero-shot": ("clip", 8),
    "playground/audio-image": ("imagebind", 4),
    "playground/audio-plus-image": ("imagebind", 4),
    "playground/segment": ("sam", 1),
}


@pytest.mark.parametrize(("task", "kind", "count"), [(task, *how) for task, how in KEPT.items()])
def test_every_task_keeps_what_a_model_gave(task, kind, count, tmp_path, monkeypatch):
    made = small(kind, std=0.3)
    report = evaluate(made, task, count=count, out=tmp_path)
    name = task.replace("/", "-")
    whole = (tmp_path / f"{name}.json").read_bytes()
    kept = read_result(tmp_path / f"{name}.json")
    assert kept.report == report and len(kept.answers) == report.examples == count
    assert all(pm.Image(tmp_path / one.media[0]).pixels.size == (96, 96) for one in kept.answers)
    if kept.metric in report.metrics:
        mean = sum(one.score for one in kept.answers) / count
        assert mean == pytest.approx(report.metrics[kept.metric], abs=0.05 if task == "playground/segment" else 1e-9)
    for verb in ("embed", "reply_all", "match", "caption_all", "segment", "embed_image"):
        monkeypatch.setattr(made, verb, lambda *_, **__: pytest.fail("it is asked again"), raising=False)
    (tmp_path / f"{name}.json").unlink()
    assert evaluate(made, task, count=count, out=tmp_path) == report
    assert (tmp_path / f"{name}.json").read_bytes() == whole
    assert page(read_results([tmp_path])).count("<article") == min(count, 80) or count > 40


def result(model, scores, task="mine", **settings):
    said = [Answered(str(i), f"<b>{i}</b>?", [], "yes", "<script>alert(1)</script>", s) for i, s in enumerate(scores)]
    accuracy = sum(scores) / max(len(scores), 1)
    made = {"data": len(scores), **settings}
    return Result(model, task, "test", len(scores), {"accuracy": accuracy}, {}, None, "accuracy", made, said)


def test_mcnemar():
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(0, 2000) < 1e-300


def test_compare():
    first, second = result("a", [True] * 4 + [False] * 6), result("b", [False] + [True] * 9)
    (found,) = compare([first, result("a", [], "other")], [second])
    assert [one.id for one in found.lost] == ["0"] and [one.id for one in found.gained] == list("456789")
    assert found.p == mcnemar(6, 1) and found.difference == pytest.approx(0.5)
    low, high = found.interval
    assert low < 0.5 < high <= 1
    (back,) = compare([second], [first])
    assert (len(back.gained), len(back.lost), back.p) == (1, 6, found.p) and back.difference == -found.difference
    (shares,) = compare([result("a", [0.3, 1.0, 0.0])], [result("b", [0.6, 1.0, 1.0])])
    assert shares.p is None and [one.id for one in shares.gained] == ["2", "0"]
    with pytest.raises(pm.InputError, match="asked different examples, 10 and 3"):
        compare([first], [result("b", [0.6, 1.0, 1.0])])
    with pytest.raises(pm.InputError, match=r"no task of which both have answers; the first has mine \(test\)"):
        compare([first], [result("b", [True], "other")])
    with pytest.raises(pm.InputError, match="two results of mine"):
        compare([first, first], [second])


@pytest.mark.parametrize(
    ("truth", "expected"),
    [(True, "yes"), (["a", None], "a, –"), ({"cat": 2, "box": [0.25, 1.0]}, "cat: 2\nbox: 0.25, 1")],
)
def test_truths_are_told_as_answers_are(truth, expected):
    assert Answered("0", "?", [], truth, truth, 1.0).expected == expected


def test_the_page_escapes_what_models_say(tmp_path):
    told = [
        result("<i>a", [True, False]),
        result("b", [0.2] * 100),
        *(result("c", [True], shots=k, retriever="random") for k in (0, 4)),
    ]
    shown = page([(tmp_path / "x.json", one) for one in told])
    assert shown.count("<script>") == 1 and "<script>alert" not in shown and "<i>a" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown and "&lt;b&gt;0&lt;/b&gt;?" in shown
    assert shown.count('<article class="wrong">') == 1 + 40 and shown.count("<article>") == 1 + 1 + 1
    assert "c, 4 shots" in shown and ">c, random</text>" in shown
    assert not re.search(r'(src|href)="(?!data:)', shown)  # complete in itself


def test_a_curve_for_each_retriever(tmp_path):
    """Results that differ by shots and retriever alone are joined; what has other pictures is not among them."""
    told = [result("c", [True, False], shots=0, retriever="random")]
    told += [result("c", [True], shots=k, retriever=way, data=2) for k in (2, 4) for way in ("random", "image")]
    told += [result("c", [True], shots=8, retriever="text", data=2, pictures="none")]
    shown = page([(tmp_path / "x.json", one) for one in told])
    curves = shown[shown.index("over examples in the prompt") :]
    assert re.findall(r">(c, \w+)</text>", curves) == ["c, random", "c, image"]
    assert [path.count(" L") for path in re.findall(r'<path class="line" [^>]* d="(M[^"h]*)"', curves)] == [2, 2]
    assert "over examples in the prompt" not in page([(tmp_path / "x.json", one) for one in told[:2:]][:1])


def test_the_commands_of_the_page(command, model, tmp_path, monkeypatch):
    """The commands that the page shows, with small models in the places of those it names."""
    monkeypatch.chdir(tmp_path)
    layouts.pope(tmp_path / "data" / "pope")
    layouts.scienceqa(tmp_path / "data" / "scienceqa")
    model.save(tmp_path / "before")
    small("llava", std=0.1).save(tmp_path / "after")
    shown = re.findall(r"^    panmodal ((?:eval \S+ .*--out|report|compare) .*)$", PAGE, re.MULTILINE)
    assert [line.split()[0] for line in shown] == ["eval", "eval", "report", "compare"]
    told = []
    for line in shown:
        words = [
            name for word in line.split() for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
        ]
        told.append(command(*words, "--json"))
        assert told[-1].code == 0, told[-1].err
    assert [json.loads(line)["task"] for line in told[0].out.splitlines()] == ["pope", "scienceqa", "playground/vqa"]
    assert json.loads(told[2].out) == {"page": "report.html", "results": 6}
    assert "data:image/" in Path("report.html").read_text()
    assert {json.loads(line)["task"] for line in told[3].out.splitlines()} == {"pope", "scienceqa", "playground/vqa"}
    words = command(*shown[3].split()).out
    assert "McNemar's exact test" in words and "answers are better" in words
    result = command("eval", "before", "playground/vqa", "playground/vq")
    assert result.code == 1 and not result.out and "did you mean" in result.err
