"""What the pages of docs show runs as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image as Pil

import panmodal as pm
from panmodal.playground import make_scene, render
from panmodal.playground.box_world import make_boxes, picture
from panmodal.playground.export import export_llava
from panmodal.playground.new_words import Lesson
from panmodal.training import read_recipe, run_recipe

ROOT = Path(__file__).parents[1]


def blocks(language: str, page: str = "tuning.md") -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a reader would be, with the data that the page makes."""
    monkeypatch.chdir(tmp_path)
    export_llava(tmp_path / "extremes", 4, "train", 96, 0, "extreme", lambda done, of: None)
    return tmp_path


def test_tuning_in_python(folder, capsys):
    (code,) = blocks("python")
    space: dict[str, object] = {}
    exec(compile(code.replace("steps=300, batch=16", "steps=2, batch=2"), "tuning.md", "exec"), space)
    answers = [space[name].reply("Is there a star?").text for name in ("chat", "again")]
    assert answers[0] == answers[1] and (folder / "merged" / "config.json").exists()
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_tuning_by_recipes(folder, number):
    (folder / "mine.toml").write_text(blocks("toml")[number])
    recipe = read_recipe(folder / "mine.toml", ["stages.0.steps=2", "stages.0.batch=2"])
    run_recipe(recipe, quiet=True)
    assert (folder / recipe.out / "adapters" / recipe.stages[0].name / "adapter_model.safetensors").exists()


def test_reasoning(command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (commands,) = blocks("sh", "reasoning.md")
    for line in commands.splitlines():
        ran = command(*shlex.split(line)[1:])
        assert ran.code == 0 and "accuracy" in ran.out and ("--cot" in line) == ("grounded" in ran.out), ran.err
    (code,) = blocks("python", "reasoning.md")
    space: dict[str, object] = {}
    exec(compile(code, "reasoning.md", "exec"), space)
    assert space["found"].answer == "2" and len(space["steps"]) == 3


def test_nlvr(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, box in enumerate(make_boxes(1, "test"), 1):
        Pil.fromarray(picture(box)).save(f"box{i}.png")
    (code,) = blocks("python", "nlvr.md")
    exec(compile(code, "nlvr.md", "exec"), {})
    assert re.fullmatch(r"<think> .* total \d </think> (true|false)\n", capsys.readouterr().out)


def test_examples(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lesson = Lesson(0)
    lines = [pm.Sample((pm.user(pm.Image(render(e.scene))), pm.assistant(e.text))).to_json() for e in lesson.shots(8)]
    Path("mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Pil.fromarray(render(lesson.query.scene)).save("new.png")
    (code,) = blocks("python", "icl.md")
    exec(compile(code, "icl.md", "exec"), {})
    assert capsys.readouterr().out.startswith("4 examples: this is a ")


def test_hallucination(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Pil.fromarray(render(make_scene(7))).save("scene.png")
    (commands,) = blocks("sh", "hallucination.md")
    for line in commands.splitlines():
        ran = command(*shlex.split(line)[1:])
        assert ran.code == 0 and ("pope_adversarial_f1" in ran.out) == ("eval" in line), ran.err
    capsys.readouterr()
    space: dict[str, object] = {}
    for code in blocks("python", "hallucination.md"):
        exec(compile(code, "hallucination.md", "exec"), space)
    assert capsys.readouterr().out.startswith("on a ")
    assert [one.question for one in space["found"].checked] == [
        f"Is there a {thing} in the picture?" for thing in ("red circle", "pink cross")
    ]
