"""Commands with a model behind a server, and the judge, as a user meets them."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image as Pil

from panmodal.playground import make_scene, render
from tests.families.server import fail, say, serving, stream


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-seen")
    with serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture
def scene(tmp_path):
    Pil.fromarray(render(make_scene(0))).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def one_line_error(result, *words):
    assert result.code == 1 and len(result.err.splitlines()) == 1 and "sk-" not in result.err, result.err
    for word in words:
        assert word in result.err


def test_ask(command, server, scene):
    server.plan = [say("Two.")]
    assert command("ask", scene, "How many?", "--model", "openai:m").out == "Two.\n"
    told = json.loads(command("ask", scene, "How many?", "--model", "openai:m", "--json").out)
    assert told == {"model": "openai:m", "images": [str(scene)], "question": "How many?", "answer": "Two."}
    picture, text = server.asked[0]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,") and text["text"] == "How many?"
    assert server.asked[0] == server.asked[1] and server.asked[0]["seed"] == 0


def test_chat(command, server, scene, monkeypatch):
    server.plan = [stream("Tw", "o."), stream("Yes.")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\nAre you sure?\n"))
    assert command("chat", "--model", "openai:m", "--image", scene, "--system", "Be brief.").out == "Two.\nYes.\n"
    assert [m["role"] for m in server.asked[1]["messages"]] == ["system", "user", "assistant", "user"]
    one_line_error(command("chat", "--model", "openai:m", "--quick"), "leave out --quick")


def test_eval(command, server):
    server.plan = [say("yes")]
    told = json.loads(command("eval", "openai:m", "playground/vqa", "--count", 14, "--json").out)
    assert told["model"] == "openai:m" and told["examples"] == 14 and "accuracy" in told["metrics"]
    one_line_error(command("eval", "openai:m", "playground/retrieval"), "openai:m is Remote")


def test_what_a_server_refuses(command, server, scene, tmp_path, monkeypatch):
    server.plan = [fail(401, "Incorrect API key sk-not-to-be-seen")]
    one_line_error(command("ask", scene, "?", "--model", "openai:m"), "401", "Incorrect API key …; set OPENAI_API_KEY")
    server.plan = [fail(400, "too long"), say("Two.")]
    lines = [{"messages": [{"role": "user", "content": text}]} for text in ("a", "b")]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = command("ask", tmp_path / "asked.jsonl", "--model", "openai:m")
    assert result.out == "Two.\n" and "too long" in result.err and "1 of 2 conversations" in result.err
    one_line_error(command("ask", scene, "?", "--model", "openai:m", "--device", "meta"), "runs where its server is")
    one_line_error(command("embed", scene, "--model", "openai:m"), "openai:m is Remote, which does not embed")
    monkeypatch.setenv("OPENAI_BASE_URL", "server:8000")
    one_line_error(command("ask", scene, "?", "--model", "openai:m"), "https://HOST/v1")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.jsonl").write_text(
        '{"question_id": 1, "image": "scene.png", "text": "What?", "category": "conv"}\n'
    )
    (tmp_path / "context.jsonl").write_text('{"image": "scene.png", "caption": ["two circles"]}\n')
    for name in ("gpt4", "mine"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question_id": 1, "text": name}) + "\n")
    return ("judge", "gpt4.jsonl", "mine.jsonl", "--questions", "questions.jsonl", "--model", "openai:m")


def test_judge(command, server, bench, scene):
    server.plan = [say("8 6\nMine is shorter.")]
    told = json.loads(command(*bench, "--context", "context.jsonl", "--images", ".", "--json").out)
    scores = {"relative_score": 75, "score": 6, "reference_score": 8}
    assert told["metrics"] == {"mine": {**scores, "by_category": {"conv": scores}}}
    assert told["judge"] == "openai:m" and told["prompt"].keys() == {"version", "sha256"} and told["unparsed"] == 0
    picture, text = server.asked[0]["messages"][1]["content"]
    assert picture["type"] == "image_url" and "two circles" in text["text"]
    again = command(*bench, "--context", "context.jsonl", "--images", ".")
    assert again.out.splitlines()[0] == "openai:m, relative: 1 questions, 1 verdicts" and len(server.asked) == 1
    server.plan = [say("both")]
    told = command(*bench, "--mode", "pairwise", "--verdicts", "pairs.jsonl")
    assert told.out.splitlines()[0].endswith("2 verdicts, 2 of which could not be read")


def test_what_cannot_be_judged(command, server, bench, tmp_path):
    one_line_error(command(*bench, "--mode", "relativ"), "did you mean 'relative'")
    one_line_error(command(*bench, "gpt4.jsonl"), "two files of answers have one name")
    (tmp_path / "mine.jsonl").write_text("")
    one_line_error(command(*bench), "mine has no answer to question 1")


def test_the_page_runs(command, server, scene, tmp_path, monkeypatch, capsys):
    """All commands and all Python of docs/remote.md, as they stand there, but for the number of examples"""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    scene.rename(tmp_path / "images" / "scene.png")
    shutil.copy(tmp_path / "images" / "scene.png", scene)
    (tmp_path / "questions.jsonl").write_text('{"question_id": 1, "image": "scene.png", "text": "What?"}\n')
    (tmp_path / "context.jsonl").write_text('{"image": "scene.png", "caption": "two circles"}\n')
    for name in ("answers_gpt4", "yours"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question_id": 1, "text": name}) + "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\n"))
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text().replace("--count 280", "--count 14")
    streaming = lambda handler: (stream("5") if "stream" in handler.body else say("5"))(handler)  # noqa: E731
    server.plan = [streaming]
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "remote.md", "exec"), {})
    assert capsys.readouterr().out == "5\n5" and (tmp_path / "mine.jsonl").read_text().count("\n") == 1
    lines = re.findall(r"^    panmodal (.*)$", page, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        assert command(*shlex.split(line)).code == 0, line
