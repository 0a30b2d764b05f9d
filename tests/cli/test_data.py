"""`panmodal data`, and every command and example of docs/data.md."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from panmodal.data.formats import open_data
from panmodal.data.records import to_sample
from panmodal.training.run import open_source
from tests.cli.test_commands import one_line_error
from tests.training.test_check import record, written

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text("utf-8")


def test_check(command, tmp_path):
    file, bad = written(tmp_path), tmp_path / "bad.jsonl"
    result = command("data", "check", file, "--bad", bad)
    assert result.code == 1 and "Traceback" not in result.err
    assert "12 samples, 9 of them bad; 2 different pictures" in result.out
    assert "2 over the 640 that the model reads, where 2 answers would be cut" in " ".join(result.out.split())
    told = [json.loads(line) for line in bad.read_text().splitlines()]
    assert [one["number"] + 1 for one in told] == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert told[1]["place"] == f"{file}, line 4" and "1 pictures" in told[1]["faults"]["placeholders"]
    assert told[1]["record"] == record("a.png", "no placeholder") and "record" not in told[0]
    found = json.loads(command("data", "check", file, "--json").out)
    assert found["samples"] == 12 and found["bad"] == 9 and found["missing_pictures"] == 1


def test_a_good_data_set_ends_with_status_0(command, tmp_path):
    written(tmp_path)
    file = tmp_path / "good.json"
    file.write_text(json.dumps([record("a.png"), record("copy.png")]))
    result = command("data", "check", file, "--json")
    assert result.code == 0 and json.loads(result.out)["duplicated_pictures"] == 1
    one_line_error(command("data", "check", tmp_path / "none.jsonl"), "no data")
    one_line_error(command("data", "check", "playground/caption"), "did you mean", "playground/captions")
    one_line_error(command("data", "check", file, "--model", "tiny/chap"), "no model 'tiny/chap'")


def test_show(command, tmp_path):
    file, page = written(tmp_path), tmp_path / "sheet.html"
    result = command("data", "show", file, "--count", 3, "--out", page, "--json")
    assert result.code == 0 and json.loads(result.out)["samples"] == 3
    assert page.read_text("utf-8").count("<article>") == 3
    one_line_error(command("data", "show", file, "--out", tmp_path / "sheet.pdf"), "an .html file")


def test_rationales(command, tmp_path):
    out = tmp_path / "thought.jsonl"
    result = command("data", "rationales", "playground/thoughts", "--out", out, "--count", 3, "--json")
    told = json.loads(result.out)
    assert result.code == 0 and told["samples"] == 3 and told["right"] == len(out.read_text().splitlines())
    one_line_error(command("data", "rationales", "playground/statements", "--out", out), "has no end")
    one_line_error(
        command("data", "rationales", "playground/box", "--out", out, "--model", "tiny/clip"), "not converse"
    )


@pytest.mark.parametrize("name", ["check", "show", "rationales"])
def test_help_has_an_example(name, command):
    told = command("data", name, "--help")
    assert told.code == 0 and f"panmodal data {name}" in told.out and "--json" in told.out


def test_the_commands_of_the_page(command, tmp_path, monkeypatch):
    written(tmp_path)
    (tmp_path / "my.jsonl").write_text(json.dumps(record("a.png")))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    panmodal (data .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for line in commands:
        assert command(*shlex.split(line)).code == 0
    assert (tmp_path / "bad.jsonl").read_text() == "" and (tmp_path / "sheet.html").exists()


def test_the_examples_of_the_page(tmp_path, monkeypatch):
    shutil.copy(ROOT / "examples" / "scene.png", tmp_path)
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        sample = to_sample(json.loads(line), tmp_path)
        assert sample.images[0].pixels.size and (sample.messages[-1].role == "assistant" or "chosen" in sample.about)
    monkeypatch.chdir(tmp_path)
    for name in ("my.jsonl", "more.json"):
        Path(name).write_text(block)
    assert open_data("my.jsonl").size == len(block.splitlines()) == 6
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    sizes = [open_source(tomllib.loads(line)["data"]).size for line in recipe.splitlines()]
    assert sizes == [6, 12, None]
