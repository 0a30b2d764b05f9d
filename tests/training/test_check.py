"""`data check` and `data show`: planted faults are all found, and the page shows what the model gets."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.formats import open_data
from panmodal.data.sample import Image, Sample, assistant, user
from panmodal.errors import InputError
from panmodal.families import outline
from panmodal.playground import make_scene, render
from panmodal.training.check import check
from panmodal.training.run import open_source
from panmodal.training.sheet import pictures, pieces, sheet
from panmodal.training.stages import OBJECTIVES


@pytest.fixture(scope="module")
def processor():
    return outline("tiny/chat").processor


def record(picture: str, question: str = "<image>\nhow many?", answer: str = "two") -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"image": picture, "conversations": turns}


def written(folder: Path) -> Path:
    """A data set in which every fault stands once, after two good lines"""
    Pil.fromarray(render(make_scene(0))).save(folder / "a.png")
    Pil.fromarray(render(make_scene(1))).save(folder / "b.png")
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:200])
    lines = [
        json.dumps(record("a.png")),
        json.dumps(record("b.png", "<image> how many?", "three")),
        "{broken",
        json.dumps(record("a.png", "no placeholder")),
        json.dumps(record("gone.png")),
        json.dumps(record("cut.png")),
        json.dumps(record("a.png", "<image> how many?", "red " * 700)),
        json.dumps({"messages": [{"role": "user", "content": "what?"}]}),
        json.dumps(record("a.png", answer=" ")),
        json.dumps(record("copy.png")),
        json.dumps({"messages": [{"role": "user", "content": [{"type": "depth_url", "depth_url": {"url": "d.npy"}}]}]}),
        json.dumps({"image": "a.png", "prompt": "what?", "chosen": "a star", "rejected": "red " * 700}),
    ]
    np.save(folder / "d.npy", np.ones((4, 4), np.float32))
    file = folder / "data.jsonl"
    file.write_text("\n".join(lines))
    return file


def test_planted_faults_are_all_found(processor, tmp_path):
    looks = {}
    report = check(open_data(written(tmp_path)), processor, told=lambda look: looks.update({look.number + 1: look}))
    faults = {line: sorted(look.faults) for line, look in looks.items()}
    assert faults == {
        3: ["unreadable"],
        4: ["placeholders"],
        5: ["missing_pictures"],
        6: ["broken_pictures"],
        7: ["too_long"],
        8: ["masked"],
        9: ["empty_answers"],
        10: [],
        11: ["unusable"],
        12: ["too_long"],
    }
    assert list(looks[10].notes) == ["duplicated_pictures"] and "copy.png is the same as" in str(looks[10].notes)
    told = report.to_json()
    assert told["samples"] == 12 and told["bad"] == 9 and told["pictures"] == 2
    assert told["too_long"] == 2 and told["truncated_answers"] == 2 and told["duplicated_pictures"] == 1
    assert "data.jsonl, line 4: the record has 1 pictures and its text 0 placeholders" in report.first["placeholders"]
    assert "cut there, 1 of 1 answers would lose tokens" in looks[7].faults["too_long"]
    assert told["tokens"]["max"] > told["context"] > told["tokens"]["median"]


def test_what_training_takes_check_takes(processor, tmp_path):
    """Lengths are those of training, and what it finds bad is what training refuses."""
    source, bad = open_data(written(tmp_path)), set()
    report = check(source, processor, told=lambda look: bad.add(look.number) if look.faults else None)
    assert 8 in bad  # an empty answer, from which a training learns when to stop, and no more
    lengths = []
    for number in range(source.size):
        try:
            lengths.append(len(OBJECTIVES["answers"].encode(processor, source.sample(number)).ids))
            assert number not in bad or number == 8
        except InputError:
            assert number in bad
    assert set(lengths) <= set(report.tokens)


def test_a_cut_through_a_picture_is_told(processor):
    class Long:
        size = 1

        def sample(self, index: int) -> Sample:
            pictures = [Image(render(make_scene(n))) for n in range(6)]  # of 144 tokens each
            return Sample((user("which?"), assistant("this"), user(*pictures), assistant("that")))

    looks = []
    check(Long(), processor, told=looks.append)
    assert "1 of 2 answers would lose tokens, and a picture a part of it" in looks[0].faults["too_long"]


def test_captions_are_checked_for_models_without_conversations():
    class Captions:
        size = 2

        def sample(self, index: int) -> Sample:
            return Sample((user(Image(render(make_scene(index)))), assistant("a red star" * (1 + 60 * index))))

    report = check(Captions(), outline("tiny/clip").processor)
    assert report.bad == 0 and report.truncated_answers == 1 and report.context == 96


def test_an_endless_source_is_looked_at_for_a_while(processor):
    with pytest.raises(InputError, match="--count"):
        check(open_source("playground/captions"), processor)
    assert check(open_source("playground/captions"), processor, count=3).samples == 3


@pytest.mark.parametrize("name", ["tiny/chat", "tiny/clip", "tiny/flamingo"])
def test_an_outline_is_the_model_without_its_weights(name):
    thin, whole = outline(name), pm.load(name)
    assert type(thin) is type(whole) and next(thin.model.parameters()).is_meta
    image = Image(render(make_scene(0)))
    assert torch.equal(thin.processor.pictures([image]), whole.processor.pictures([image]))
    assert thin.processor.context == whole.processor.context


def test_pieces_are_what_is_learned_and_where_pictures_stand(processor):
    sample = Sample((user(Image(render(make_scene(0))), "Café two?"), assistant("Two  stars."), user("?")))
    encoded = OBJECTIVES["answers"].encode(processor, sample)
    found = list(pieces(processor, sample, encoded))
    assert "".join(p.text for p in found) == processor.template.render(sample.messages)
    assert "".join(p.text for p in found if p.learned) == "Twostars.</s>"
    assert [p.vectors for p in found if p.vectors] == [144]
    tokens = [token for p in found if p.token is not None for token in [p.token] * (p.vectors or 1)]
    assert tokens == encoded.ids


def test_pictures_are_as_the_model_gets_them(processor):
    picture = Pil.fromarray(render(make_scene(0), 200))
    sample = Sample((user(Image(picture)), assistant("x")))
    batch = processor.batch([OBJECTIVES["answers"].encode(processor, sample)])
    (shown,) = pictures(processor, batch)
    assert np.array_equal(np.asarray(shown), processor.images.pixels(picture))


def test_the_page(processor, tmp_path):
    page = sheet(open_data(written(tmp_path)), processor, 12, "a <title>")
    assert page.count("<article>") == 12 and "http" not in page and "a &lt;title&gt;" in page
    cards = page.split("<article>")[1:]
    assert f"{tmp_path / 'data.jsonl'}, line 2 · " in cards[1] and "picture 1 × 144" in cards[1]
    assert re.findall(r"<b [^>]*>([^<]*)</b>", cards[1]) == ["three", html.escape("</s>")]
    assert "1 pictures and its text 0 placeholders" in cards[3] and 'class="bad"' in cards[3]
    data = re.search(r"base64,([^\"]*)", cards[0]).group(1)
    assert Pil.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)
    few = sheet(open_data(tmp_path / "data.jsonl"), processor, 3, "few")
    assert [int(n) for n in re.findall(r"line (\d+)", few)[:1]] == [1] and few.count("<article>") == 3
    pair = sheet(open_source("playground/captions"), outline("tiny/clip").processor, 1, "pairs")
    assert "<img" in pair and html.escape(open_source("playground/captions").sample(0).messages[-1].text) in pair
