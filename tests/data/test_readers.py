from __future__ import annotations

import json

import pytest

from panmodal.data.readers import from_llava, open_file
from panmodal.data.sample import Image, Text
from panmodal.errors import InputError

LLAVA = {
    "id": "7",
    "image": "cat.jpg",
    "conversations": [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A cat."}],
}


def test_llava_records(tmp_path):
    sample = from_llava(LLAVA, tmp_path)
    image, text = sample.messages[0].parts
    assert isinstance(image, Image) and image.source == tmp_path / "cat.jpg"
    assert text == Text("What is this?")
    assert sample.messages[1].text == "A cat." and sample.about == {"id": "7"}


def test_several_pictures_stand_where_their_placeholders_are(tmp_path):
    turns = [
        {"from": "human", "value": "<image> before, <image> after: what changed?"},
        {"from": "gpt", "value": "It."},
    ]
    sample = from_llava({"image": ["a.jpg", "b.jpg"], "conversations": turns}, tmp_path)
    kinds = [p.name[-5:] if isinstance(p, Image) else p.text for p in sample.messages[0].parts]
    assert kinds == ["a.jpg", "before,", "b.jpg", "after: what changed?"]


@pytest.mark.parametrize("pictures", [[], ["a.jpg"], ["a.jpg", "b.jpg", "c.jpg"]])
def test_pictures_and_placeholders_must_match(pictures, tmp_path):
    turns = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "x"}]
    with pytest.raises(InputError, match=f"{len(pictures)} pictures and its text 2 placeholders"):
        from_llava({"image": pictures, "conversations": turns}, tmp_path)


def test_text_alone(tmp_path):
    sample = from_llava({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, tmp_path)
    assert sample.images == []


def test_files_are_read_by_number(tmp_path):
    ours = {"messages": [{"role": "user", "content": "ä"}], "kind": "x"}
    lines = tmp_path / "data.jsonl"
    lines.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in (ours, LLAVA, ours)), "utf-8")
    source = open_file(lines)
    assert source.size == 3
    assert [source.sample(i).messages[0].text for i in (2, 1, 0)] == ["ä", "What is this?", "ä"]
    records = tmp_path / "data.json"
    records.write_text(json.dumps([LLAVA, ours]))
    assert open_file(records).size == 2
    assert open_file(records, tmp_path / "images").sample(0).images[0].source == tmp_path / "images" / "cat.jpg"


def test_a_bad_line_is_named(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"messages": []}\n{broken\n[]\n')
    source = open_file(file)
    source.sample(0)
    with pytest.raises(InputError, match="data.jsonl, line 2: not JSON"):
        source.sample(1)
    with pytest.raises(InputError, match="line 3: a sample needs a list 'messages'"):
        source.sample(2)


def test_files_that_are_no_data(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "object.json").write_text("{}")
    for name in ("empty.jsonl", "object.json", "none.jsonl", "data.csv"):
        with pytest.raises(InputError, match=name.partition(".")[0]):
            open_file(tmp_path / name)
