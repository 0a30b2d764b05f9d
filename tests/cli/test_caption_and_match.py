from __future__ import annotations

import json

import pytest
from PIL import Image as Pil

import panmodal as pm
from panmodal.playground import make_scene, render
from tests.families.small import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models and two pictures."""
    folder = tmp_path_factory.mktemp("blip2")
    for name in ("blip2", "blip2-itm"):
        small(name, std=0.3).save(folder / name)
    (folder / "scenes").mkdir()
    for seed in range(2):
        Pil.fromarray(render(make_scene(seed))).save(folder / "scenes" / f"{seed}.png")
    return folder


def test_caption(command, folder):
    model, scene = folder / "blip2", folder / "scenes" / "1.png"
    expected = pm.load(model).caption(pm.Image(scene), "a picture of", max_tokens=6)
    told = command("caption", folder / "scenes", "--prompt", "a picture of", "--max-tokens", 6, "-m", model, "--json")
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert lines[1] == {"model": str(model), "image": str(scene), "caption": expected}
    assert command("caption", scene, "--prompt", "a picture of", "--max-tokens", 6, "-m", model).out == expected + "\n"
    refused = command("caption", scene, "-m", folder / "blip2-itm")
    assert refused.code == 1 and "does not caption" in refused.err


def test_match(command, folder):
    model, scene, texts = folder / "blip2-itm", folder / "scenes" / "0.png", ["a red circle", "two stars"]
    expected = pm.load(model).match(pm.Image(scene), texts)
    told = json.loads(command("match", scene, *texts, "-m", model, "--json").out)
    assert list(told["matches"].values()) == pytest.approx(expected)
    assert command("match", scene, *texts, "-m", model).out.splitlines()[1] == f"{expected[1]:7.1%}  two stars"
    refused = command("match", "-", "-", "-m", model)
    assert refused.code == 1 and "either the picture or the texts" in refused.err
