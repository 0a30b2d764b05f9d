from __future__ import annotations

import json

import pytest
from PIL import Image as Pil

from panmodal.playground import make_scene, render
from tests.families.small import small


@pytest.fixture
def folder(tmp_path):
    for name in ("llava", "llama", "clip"):
        small(name, std=0.3).save(tmp_path / name)
    Pil.fromarray(render(make_scene(0))).save(tmp_path / "0.png")
    return tmp_path


def test_contrast(command, folder):
    asked = ("ask", folder / "0.png", "what is this?", "--model", folder / "llava", "--max-tokens", 8)
    plain, same = command(*asked), command(*asked, "--contrast", 0)
    other = command(*asked, "--contrast", 2, "--noise", 900, "--plausible", 0)
    assert plain.out == same.out and other.code == 0 and other.out != plain.out
    refused = command(*asked, "--noise", 900)
    assert refused.code != 0 and "--noise and --plausible are for a contrast" in refused.err
    refused = command("eval", folder / "llama", "hallucination", "--pictures", "none", "--contrast", 1, "--count", 7)
    assert refused.code != 0 and "here is none; show one" in refused.err


def test_eval(command, folder):
    count = ("hallucination", "--count", 7, "--json")
    told = json.loads(command("eval", folder / "llava", *count, "--correct", folder / "llava", "--contrast", 1).out)
    assert told["examples"] == 7 and told["metrics"].keys() == told["intervals"].keys()
    assert {"pope_adversarial_f1", "pope_f1", "chair_i", "relation_yes_share"} <= told["metrics"].keys()
    refused = command("eval", folder / "llava", *count, "--correct", folder / "clip")
    assert refused.code != 0 and "Contrastive, which does not reply" in refused.err
    refused = command("eval", folder / "clip", *count)
    assert refused.code != 0 and "asks for a Conversational model" in refused.err
