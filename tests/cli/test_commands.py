"""The command line as a user meets it. What needs trained models is in test_models."""

from __future__ import annotations

import io
import json
import shlex
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil

import panmodal as pm
from panmodal.cli import app
from panmodal.data.masks import from_rle
from panmodal.data.sounds import to_wav
from panmodal.families import BlipHybrid
from panmodal.playground import make_scene, render, sound
from tests.checkpoints.test_store import change, llama
from tests.families.small import small

COMMANDS = [
    "ask",
    "chat",
    "caption",
    "embed",
    "classify",
    "match",
    "search",
    "segment",
    "train",
    "eval",
    "judge",
    "report",
    "compare",
    "models",
    "playground",
    "bench",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("clip", "imagebind", "llava", "llama", "vit", "flamingo", "blip", "sam"):
        small(name, std=0.3).save(folder / name)
    answers = {**small("blip").config, "architectures": ["BlipForQuestionAnswering"]}
    BlipHybrid.fresh(answers, small("blip").checkpoint.files).save(folder / "blip-vqa")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(6):
        Pil.fromarray(render(make_scene(seed))).save(folder / f"{seed}.png")
    return folder


def one_line_error(result, *words):
    assert result.code not in (0, None)
    lines = [line for line in result.err.splitlines() if line and not line.startswith("hint:")]
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


def test_help_has_an_example_of_every_command(command):
    whole = command("--help")
    assert whole.code == 0
    for name in COMMANDS:
        assert name in whole.out
        told = command(name, "--help")
        assert told.code == 0 and "Example" in told.out and f"panmodal {name}" in told.out and "--json" in told.out


def test_completion_and_module():
    assert any(c.callback for c in app.registered_commands)
    asked = f"{shlex.quote(sys.executable)} -m panmodal --show-completion; exit"  # of the shell that runs it
    shown = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert "COMPREPLY" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_an_error(name, command):
    result = command(name, "--no-such-option")
    assert result.code != 0 and "no-such-option" in result.err and "Traceback" not in result.err


def test_ask(command, models, scenes):
    one = command("ask", scenes / "0.png", "how many?", "--model", models / "llava", "--max-tokens", 5)
    assert one.code == 0 and len(one.out.splitlines()) == 1
    many = command("ask", scenes, "how many?", "--model", models / "llava", "--max-tokens", 5)
    assert [line.partition(":")[0] for line in many.out.splitlines()] == [str(scenes / f"{i}.png") for i in range(6)]
    told = command(
        "ask",
        scenes / "0.png",
        scenes / "1.png",
        "same?",
        "--model",
        models / "llava",
        "--together",
        "--json",
        "--max-tokens",
        5,
    )
    answer = json.loads(told.out)
    assert len(answer["images"]) == 2 and answer["question"] == "same?" and "answer" in answer


def test_ask_reads_a_picture_from_standard_input(command, models, scenes, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((scenes / "0.png").read_bytes())))
    piped = command("ask", "-", "how many?", "--model", models / "llava", "--max-tokens", 5)
    named = command("ask", scenes / "0.png", "how many?", "--model", models / "llava", "--max-tokens", 5)
    assert piped.code == 0 and piped.out == named.out


def test_ask_answers_a_file_of_conversations(command, models, scenes, tmp_path):
    picture = {"type": "image_url", "image_url": {"url": str(scenes / "0.png")}}
    lines = [
        {"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "how many?"}]}]},
        {"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image> same?"}]},
        {"messages": [{"role": "user", "content": "hello"}]},
    ]
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    result = command("ask", file, "--model", models / "llava", "--json", "--max-tokens", 5)
    assert [json.loads(line)["line"] for line in result.out.splitlines()] == [1, 3]
    assert result.code == 1
    assert "line 2: the record has 2 pictures and its text 1 placeholders" in result.err
    assert "1 of 3 conversations could not be answered" in result.err


@pytest.mark.parametrize("quick", [[], ["--quick"]])
def test_chat(quick, command, models, scenes, monkeypatch):
    said = f"hello\n/image {scenes / '0.png'}\nhow many?\n/clear\nagain?\n/quit\nnever said\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    result = command("chat", "--model", models / "llava", "--max-tokens", 4, "--json", *quick)
    replies = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and [r["role"] for r in replies] == ["assistant"] * 3
    monkeypatch.setattr(sys, "stdin", io.StringIO("/image nowhere.png\n"))
    one_line_error(command("chat", "--model", models / "llava"), "no file nowhere.png")
    monkeypatch.setattr(sys, "stdin", io.StringIO("/imagine\n"))
    one_line_error(command("chat", "--model", models / "llava"), "/imagine is no command", "/image PATH")


def test_caption(command, models, scenes):
    told = command("caption", scenes, "--model", models / "blip", "--prompt", "a red", "--json")
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert [line["image"] for line in lines] == [str(scenes / f"{i}.png") for i in range(6)]
    assert all(line["caption"].startswith("a red") for line in lines)
    one = command("caption", scenes / "0.png", "--model", models / "blip", "--prompt", "a red")
    assert one.out == lines[0]["caption"] + "\n"
    assert "0.png: " in command("caption", scenes, "--model", models / "blip", "--beams", 2).out
    asked = ("caption", scenes / "0.png", "--model")
    one_line_error(command(*asked, models / "blip-vqa"), "BlipHybrid, which does not caption", "`panmodal models`")
    one_line_error(command(*asked, models / "blip", "--beams", 0), "beams is 0")
    one_line_error(command(*asked, models / "blip", "--prompt", "red " * 100), "fills the model's context of 96")


def test_match(command, models, scenes, monkeypatch):
    asked = ("match", scenes / "0.png")
    told = command(*asked, "a red circle", "two blue stars", "--model", models / "blip", "--json")
    matches = json.loads(told.out)["matches"]
    assert list(matches) == ["a red circle", "two blue stars"]
    assert all(0 <= share <= 1 for share in matches.values())
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red circle\ntwo blue stars\n"))
    piped = command(*asked, "-", "--model", models / "blip").out.splitlines()
    assert piped == [f"{share:7.1%}  {text}" for text, share in matches.items()]
    many = command("match", scenes, "a red circle", "--model", models / "blip").out.splitlines()
    assert many[::2] == [str(scenes / f"{i}.png") for i in range(6)]
    one_line_error(command("match", "-", "-", "--model", models / "blip"), "either the picture or the texts")
    one_line_error(command(*asked, "red", "--model", models / "clip"), "Contrastive, which does not match")


def test_ask_and_embed_with_a_blip(command, models, scenes):
    asked = ("ask", scenes / "0.png", "how many?", "--max-tokens", 5, "--model")
    assert command(*asked, models / "blip-vqa").code == 0
    one_line_error(command(*asked, models / "blip"), "does not reply")
    told = command("embed", scenes / "0.png", "--text", "red", "--model", models / "blip", "--json")
    assert [len(json.loads(line)["embedding"]) for line in told.out.splitlines()] == [16, 16]
    verbs = {name: json.loads(command("models", models / name, "--json").out)["verbs"] for name in ("blip", "blip-vqa")}
    assert verbs == {"blip": ["embed", "match", "caption"], "blip-vqa": ["answer", "reply"]}


def test_embed(command, models, scenes, tmp_path):
    out = tmp_path / "vectors.npy"
    result = command("embed", scenes, "--text", "a red circle", "--model", models / "clip", "--out", out, "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert len(lines) == 7 and lines[-1]["text"] == "a red circle"
    vectors = np.load(out)
    assert vectors.shape == (7, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(lines[3]["embedding"], vectors[3])
    assert "16 numbers" in command("embed", scenes / "0.png", "--model", models / "clip").out
    one_line_error(command("embed", "--model", models / "clip"), "give pictures")
    one_line_error(command("embed", scenes, "--model", models / "clip", "--out", "x.csv"), ".npy")


def test_embed_reads_texts_from_standard_input(command, models, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\nblue\n"))
    result = command("embed", "--text", "-", "--model", models / "clip", "--json")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == ["red", "blue"]


def test_classify(command, models, scenes):
    result = command("classify", scenes, "--labels", "red circle, blue star,", "--model", models / "clip", "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert len(lines) == 6 and sum(lines[0]["labels"].values()) == pytest.approx(1)
    shown = command(
        "classify", scenes / "0.png", "--labels", "red circle, blue star", "--top", 1, "--model", models / "clip"
    )
    assert len(shown.out.splitlines()) == 1 and "%" in shown.out
    one_line_error(command("classify", scenes / "0.png", "--model", models / "clip"), "--labels")


def test_search_keeps_what_it_embedded(command, models, scenes, tmp_path, monkeypatch):
    from panmodal.families import Contrastive

    embedded = []
    embed = Contrastive.embed
    monkeypatch.setattr(
        Contrastive, "embed", lambda self, items, *a: embedded.append(len(items)) or embed(self, items, *a)
    )
    first = command("search", scenes, scenes / "2.png", "--top", 3, "--model", models / "clip", "--json")
    found = [json.loads(line) for line in first.out.splitlines()]
    assert found[0]["image"] == str(scenes / "2.png") and found[0]["score"] == pytest.approx(1, abs=1e-4)
    assert [f["score"] for f in found] == sorted((f["score"] for f in found), reverse=True) and len(found) == 3
    assert embedded == [6, 1]
    again = command("search", scenes, scenes / "2.png", "--top", 3, "--model", models / "clip", "--json")
    assert again.out == first.out and embedded[2:] == [1]  # the query alone
    assert command("search", scenes, "a red circle", "--model", models / "clip").code == 0
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "bad.png").write_text("no picture")
    (tmp_path / "mixed" / "good.png").write_bytes((scenes / "0.png").read_bytes())
    mixed = command("search", tmp_path / "mixed", "red", "--model", models / "clip", "--json")
    assert len(mixed.out.splitlines()) == 1 and "skipped" in mixed.err and "bad.png" in mixed.err


def test_sounds(command, models, scenes, tmp_path, monkeypatch):
    """With ImageBind: embedded, named by labels, and searched among pictures."""
    folder, bind = tmp_path / "all", ("--model", models / "imagebind", "--json")
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes((scenes / f"{seed}.png").read_bytes())
        (folder / f"{seed}.wav").write_bytes(to_wav(sound(make_scene(seed)), 16_000))
    lines = [json.loads(line) for line in command("embed", folder, "--text", "red", *bind).out.splitlines()]
    assert [next(iter(line)) for line in lines] == ["image", "audio"] * 3 + ["text"]
    found = json.loads(command("search", folder, folder / "2.wav", "--top", 1, *bind).out)
    assert found["audio"] == str(folder / "2.wav") and found["score"] == pytest.approx(1, abs=1e-4)
    named = json.loads(command("classify", folder / "0.wav", "--labels", "red, blue", *bind).out)
    assert named["audio"] == str(folder / "0.wav") and sum(named["labels"].values()) == pytest.approx(1)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "0.wav").read_bytes())))
    piped = json.loads(command("embed", "-", *bind).out)
    assert piped["embedding"] == pytest.approx(lines[1]["embedding"], abs=1e-5)
    (tmp_path / "bad.wav").write_bytes(b"RIFF    WAVEfmt ")
    one_line_error(command("embed", tmp_path / "bad.wav", "--model", models / "imagebind"), "bad.wav", "WAV")
    one_line_error(command("embed", folder / "0.wav", "--model", models / "clip"), "embeds pictures and texts")


def test_another_model_does_not_find_the_first_ones_vectors(command, scenes, tmp_path):
    for n, std in enumerate((0.2, 0.3)):
        small("clip", std).save(tmp_path / str(n))
        found = command("search", scenes, scenes / "2.png", "--model", tmp_path / str(n), "--json")
        assert json.loads(found.out.splitlines()[0])["score"] == pytest.approx(1, abs=1e-4)


def test_segment(command, models, scenes, tmp_path):
    asked = ("segment", scenes / "0.png", "--model", models / "sam", "--out", tmp_path / "a")
    told = json.loads(command(*asked, "--point", "30,40", "--json").out)
    assert [Path(m["file"]).name for m in told["masks"]] == ["000.png", "001.png", "002.png"]
    assert [m["score"] for m in told["masks"]] == sorted((m["score"] for m in told["masks"]), reverse=True)
    expected = pm.load(models / "sam").segment(pm.Image(scenes / "0.png"), [(30, 40)])
    assert torch.equal(from_rle(told["masks"][0]["rle"]), expected.masks[expected.best])
    for mask in told["masks"]:
        stored = np.asarray(Pil.open(mask["file"])) > 0
        assert np.array_equal(stored, from_rle(mask["rle"]).numpy()) and stored.sum() == mask["area"]
    assert Pil.open(told["overlay"]).size == (96, 96)
    one = command(*asked, "--point", "30,40", "--background", "4,5", "--box", "20,30,60,70.5")
    assert one.code == 0 and len(one.out.splitlines()) == 2 and "overlay.png shows 1" in one.out
    two = json.loads(command(*asked, "--box", "0,0,60,70", "--box", "20,30,50,60", "--json").out)
    assert len(two["masks"]) == 2


def test_segment_everything(command, models, scenes, tmp_path):
    family = small("sam")
    family.config["mask_generation"] = {"points_per_side": 3, "min_score": -9, "min_stability": 0}
    family.save(tmp_path / "lenient")
    asked = ("segment", scenes / "0.png", "--everything", "--out", tmp_path / "a", "--json", "--model")
    expected = family.segment_everything(pm.Image(scenes / "0.png"))
    told = json.loads(command(*asked, tmp_path / "lenient").out)
    assert [m["rle"] for m in told["masks"]] == [segment.rle for segment in expected] != []
    assert [m["box"] for m in told["masks"]] == [list(segment.box) for segment in expected]
    assert len(json.loads(command(*asked, tmp_path / "lenient", "--crop-layers", 1).out)["masks"]) > 0
    assert json.loads(command(*asked, models / "sam").out)["masks"] == []  # a model that is sure of nothing


def test_segment_says_what_is_wrong(command, models, scenes, tmp_path):
    asked = ("segment", scenes / "0.png", "--model", models / "sam", "--out", tmp_path / "a")
    one_line_error(command(*asked), "there is no prompt", "--point X,Y", "--everything")
    one_line_error(command(*asked, "--point", "96,3"), "the point 96,3 lies outside the picture", "96 x 96")
    one_line_error(command(*asked, "--point", "-1,3"), "the point -1,3 lies outside the picture")
    one_line_error(command(*asked, "--background", "3,400"), "the point 3,400 lies outside the picture")
    one_line_error(command(*asked, "--box", "5,5,5,20"), "the box 5,5,5,20 is empty")
    one_line_error(command(*asked, "--point", "5"), "--point takes 2 numbers", "'5'")
    one_line_error(command(*asked, "--box", "5,5,a,20"), "--box takes 4 numbers", "'5,5,a,20'")
    one_line_error(command(*asked, "--point", "5,5", "--everything"), "--everything goes without points")
    one_line_error(command("segment", scenes, "--everything", "--model", models / "sam"), "several pictures")
    one_line_error(command("segment", scenes / "0.png", "--everything", "--model", models / "clip"), "does not segment")
    (tmp_path / "file").write_text("")
    one_line_error(command(*asked[:-1], tmp_path / "file", "--point", "5,5"), "file is a file; name a folder")
    assert not (tmp_path / "a").exists()


def test_eval(command, models):
    result = command("eval", models / "llava", "playground/vqa", "--count", 28, "--split", "held-out", "--json")
    report = json.loads(result.out)
    assert set(report) == {"model", "task", "split", "examples", "metrics", "intervals"}
    assert report["examples"] == 28 and len(report["metrics"]["by_kind"]) == 14
    assert "by_kind" in command("eval", models / "llava", "playground/vqa", "--count", 14, "--pictures", "none").out
    result = command("eval", models / "flamingo", "playground/new-words", "--shots", 2, "--count", 8, "--json")
    assert set(json.loads(result.out)["metrics"]) == {"accuracy", "colour", "shape", "text_only"}
    one_line_error(command("eval", models / "llava", "playground/vqqa"), "did you mean 'playground/vqa'")
    one_line_error(command("eval", models / "llava", "playground/retrieval"), "Contrastive")
    one_line_error(command("eval", models / "llava", "playground/vqa", "--split", "heldout"), "did you mean 'held-out'")


def test_models(command, models):
    listed = command("models", "--json")
    names = [json.loads(line)["model"] for line in listed.out.splitlines()]
    assert "llava-hf/llava-1.5-7b-hf" in names
    told = json.loads(command("models", models / "clip", "--json").out)
    assert told["family"] == "Contrastive" and told["verbs"] == ["embed", "classify"]


# What users get wrong, each with one line that says so.


def test_a_missing_file(command, models):
    one_line_error(command("ask", "nowhere.png", "how many?", "--model", models / "llava"), "no file nowhere.png")
    one_line_error(command("search", "nowhere", "red", "--model", models / "clip"), "nowhere is not a folder")
    one_line_error(command("train", "nowhere.toml"), "cannot read the recipe nowhere.toml")


def test_text_named_png(command, models, tmp_path):
    (tmp_path / "a.png").write_text("I am a text")
    one_line_error(command("ask", tmp_path / "a.png", "?", "--model", models / "llava"), "a.png is not a picture")


def test_a_truncated_jpeg(command, models, tmp_path):
    noise = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    one_line_error(command("ask", tmp_path / "a.jpg", "?", "--model", models / "llava"), "a.jpg", "damaged or cut off")


def test_a_huge_png(command, models, tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    one_line_error(
        command("ask", tmp_path / "a.png", "?", "--model", models / "llava"), "a.png", "pixels; the limit is"
    )


@pytest.mark.parametrize("name", ["tiny/cpli", "llava-hf/llava-1.5-7b", "./nowhere", "Qwen/Qwen2.5-0.5B-Instrukt"])
def test_an_unknown_model(name, command, scenes):
    near = {"tiny/cpli": "", "./nowhere": "./nowhere"}.get(name, "did you mean")
    one_line_error(command("ask", scenes / "0.png", "?", "--model", name), f"no model {name!r}", near)


def test_damaged_checkpoints(command, scenes, tmp_path):
    change(llama(tmp_path / "a"), model__layers__1__mlp__up_proj__weight=None)
    change(llama(tmp_path / "b"), model__gap__weight=torch.zeros(2, 3))
    change(llama(tmp_path / "c"), model__norm__weight=torch.zeros(47))
    folder = llama(tmp_path / "d")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for name, words in {
        "a": ("'model.layers.1.mlp.up_proj.weight' [96, 48] is missing",),
        "b": ("unknown tensor 'model.gap.weight' [2, 3]",),
        "c": ("'model.norm.weight' is [47], config.json makes it [48]",),
        "d": ("pickle", "--allow-pickle"),
    }.items():
        one_line_error(command("ask", scenes / "0.png", "?", "--model", tmp_path / name), *words)


def test_an_unknown_recipe_key(command):
    recipe = Path(__file__).parents[2] / "recipes" / "tiny" / "clip.toml"
    one_line_error(command("train", recipe, "--set", "stages.0.stesp=1"), "did you mean 'steps'")


def test_two_pictures_and_one_placeholder(command, models, scenes, tmp_path):
    record = {"image": ["0.png", "1.png"], "conversations": [{"from": "human", "value": "<image> same?"}]}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    result = command("ask", tmp_path / "a.json", "--model", models / "llava")
    assert result.code == 1 and "2 pictures and its text 1 placeholders" in result.err and "Traceback" not in result.err


def test_a_prompt_longer_than_the_context(command, models, scenes):
    one_line_error(
        command("ask", scenes / "0.png", "red " * 400, "--model", models / "llava"), "and the model reads 256"
    )


def test_options_out_of_bounds(command, models, scenes):
    asked = ("ask", scenes / "0.png", "?", "--model", models / "llava")
    one_line_error(command(*asked, "--temperature", "-1"), "temperature is -1.0")
    one_line_error(command(*asked, "--max-tokens", "0"), "max_tokens is 0")
    one_line_error(command(*asked, "--device", "tpu"), "device 'tpu' cannot be used here")
    one_line_error(command("embed", scenes, "--model", models / "llama"), "does not embed")
    one_line_error(command("ask", scenes / "0.png"), "and then the question")


def test_bench_needs_a_clone(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    result = command("bench", "--only", "nothing")
    assert result.code == 1 and "Traceback" not in result.err


def test_collections(command, models, scenes, tmp_path):
    given = ["embed", scenes, "--parquet", tmp_path / "out", "-m", models / "clip"]
    told = json.loads(command(*given, "--json").out)
    assert (told["pictures"], told["done"], told["failed"]) == (6, 6, {})
    assert command(*given).out.startswith("0 of 6 pictures done now")
    one_line_error(command(*given, "--engine", "dask"), "unknown engine 'dask'", "ray")
    one_line_error(command("segment", scenes, "--point", "1,2", "--parquet", tmp_path / "m"), "--everything")
