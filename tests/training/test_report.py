"""What a person sees of a training: the bar, the log, pictures, answers, the card."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.kills import RECIPE
from PIL import Image as Pil

import panmodal as pm
from panmodal.errors import InputError
from panmodal.training import Recipe, Stage, read_recipe, run_recipe
from panmodal.training.journal import EVENTS
from panmodal.training.recipe import same_run
from panmodal.training.report import Answers
from tests.families.small import small
from tests.families.test_every_family import Four


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(out=tmp_path / "out", steps=6))
    return path


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_step_tells_its_speed_its_padding_and_its_memory(recipe, tmp_path, capsys):
    run_recipe(read_recipe(recipe))
    shown = " ".join(capsys.readouterr().err.split())
    assert "tokens/s, 0% padding" in shown and "GB" in shown and "6/6" in shown
    lines = logged(tmp_path / "out")
    assert all(line["padding"] == 0 and line["tokens_per_second"] > 0 and line["memory"] > 1e7 for line in lines)
    run_recipe(read_recipe(recipe, ["stages.0.pack=false", f"out={tmp_path / 'padded'}"]), quiet=True)
    assert any(0 < line["padding"] < 1 for line in logged(tmp_path / "padded"))


def test_the_picture_has_the_losses_and_the_rates(recipe, tmp_path):
    run_recipe(recipe, quiet=True)
    pixels = np.asarray(Pil.open(tmp_path / "out" / "loss.png")).reshape(-1, 3)
    for colour in ((40, 90, 200), (240, 150, 40)):
        assert (pixels == colour).all(axis=1).sum() > 100


def test_answers_are_written_whenever_a_state_is(recipe, tmp_path):
    watched = ["watch.data=playground/lookups", "watch.count=2", f"out={tmp_path / 'watched'}"]
    run_recipe(read_recipe(recipe, watched), quiet=True)
    run_recipe(recipe, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "watched" / "answers.jsonl").read_text().splitlines()]
    assert [(line["step"], len(line["answers"])) for line in lines] == [(3, 2), (6, 2)]
    alone, beside = (pm.load(tmp_path / out / "model").model.parameters() for out in ("out", "watched"))
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))  # nothing is learned otherwise for it


@pytest.mark.parametrize("name", ["llava", "blip"])
def test_the_page_of_answers(name, tmp_path):
    family = small(name)
    answers = Answers(Four(True), 3, tmp_path)
    family.model.train()
    answers.write(family, "s", 1)
    answers.write(family, "s", 2)
    assert family.model.training
    page = (tmp_path / "answers.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and page.count('class="truth"') == 3
    assert page.count(">s 1<") == page.count(">s 2<") == 3 and "what is it?" in page


def test_who_does_not_speak_is_not_asked(tmp_path):
    Answers(Four(True), 3, tmp_path).write(small("clip"), "s", 1)
    assert not list(tmp_path.iterdir())


def test_the_card_tells_what_the_model_was_made_of(recipe, tmp_path):
    run_recipe(recipe, quiet=True)
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    last = logged(tmp_path / "out")[-1]["loss"]
    assert card.startswith("# killed\n") and f"| words | text | playground/text | 6 | 24 | {last:.4f} |" in card
    assert '"save_every": 3' in card and (tmp_path / "out" / "model" / "loss.png").exists()


def test_tensorboard_is_told_the_same(recipe, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'panmodal[train]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_recipe(read_recipe(recipe, ["tensorboard=true"]), quiet=True)
    events = EventAccumulator(str(tmp_path / "out" / "events")).Reload()
    for name in EVENTS:
        told = [event.value for event in events.Scalars(f"words/{name}")]
        assert told == pytest.approx([line[name] for line in logged(tmp_path / "out")], rel=1e-5)


def test_without_tensorboard_it_is_said_what_to_install(recipe, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'panmodal\[train\]'"):
        run_recipe(read_recipe(recipe, ["tensorboard=true"]), quiet=True)


def test_what_is_told_does_not_make_another_run(recipe):
    read = read_recipe(recipe)
    note = json.loads(json.dumps(asdict(read)))
    del note["parallel"], note["tensorboard"], note["stages"][0]["compile"]  # as noted before there were such keys
    assert same_run(read_recipe(recipe, ["parallel=fsdp", "tensorboard=true"]), note)
    assert not same_run(read_recipe(recipe, ["seed=3"]), note)


def test_the_page_on_training_is_right(tmp_path, monkeypatch, capsys):
    """Its recipe runs, for a step; its keys are all there are; its Python runs"""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("recipe.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    run_recipe(read_recipe(Path("recipe.toml"), ["stages.0.steps=1"]), quiet=True)
    assert Path("runs/mine/answers.html").exists() and pm.load("runs/mine/model")
    keys = {field.name for kind in (Recipe, Stage) for field in fields(kind)}
    tables = page.split("## Keys")[1].split("## Packing")[0]
    assert {key for key in keys if f"`{key}`" not in tables} == set()
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert "3 " in capsys.readouterr().out and pm.load("mine")
