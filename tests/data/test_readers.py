"""Each form of a record, and each layout in which records are published, on a tiny data set in just that layout."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from panmodal.data import index
from panmodal.data.archives import expanded
from panmodal.data.formats import open_data
from panmodal.data.media import Audio, Video
from panmodal.data.nlvr import Nlvr, nlvr
from panmodal.data.records import to_sample
from panmodal.data.sample import Image, Sample, Text, assistant, system, user
from panmodal.data.tables import Rows
from panmodal.errors import InputError, PlaceholderError

LLAVA = {
    "id": "7",
    "image": "cat.jpg",
    "conversations": [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A cat."}],
}
OURS = {"messages": [{"role": "user", "content": "ä"}, {"role": "assistant", "content": "b"}], "kind": "x"}


def picture_bytes(n: int = 0, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Pil.fromarray(np.full((6, 8, 3), n, np.uint8)).save(out, kind)
    return out.getvalue()


def said(sample: Sample) -> list[tuple[str, list[str]]]:
    """Roles, and what in: texts, and the names of media"""
    return [
        (m.role, [p.text if isinstance(p, Text) else p.name.rpartition("/")[2] for p in m.parts])
        for m in sample.messages
    ]


# Records


def test_llava_records(tmp_path):
    sample = to_sample(LLAVA, tmp_path)
    image, text = sample.messages[0].parts
    assert isinstance(image, Image) and image.source == tmp_path / "cat.jpg"
    assert text == Text("What is this?")
    assert sample.messages[1].text == "A cat." and sample.about == {"id": "7"}


def test_several_pictures_stand_where_their_placeholders_are(tmp_path):
    turns = [
        {"from": "human", "value": "<image> before, <image> after: what changed?"},
        {"from": "gpt", "value": "It."},
    ]
    sample = to_sample({"image": ["a.jpg", "b.jpg"], "conversations": turns}, tmp_path)
    assert said(sample)[0] == ("user", ["a.jpg", "before,", "b.jpg", "after: what changed?"])


@pytest.mark.parametrize("pictures", [[], ["a.jpg"], ["a.jpg", "b.jpg", "c.jpg"]])
@pytest.mark.parametrize("key", ["conversations", "messages"])
def test_pictures_and_placeholders_must_match(pictures, key, tmp_path):
    turns = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "x"}]
    with pytest.raises(PlaceholderError, match=f"{len(pictures)} pictures and its text 2 placeholders"):
        to_sample({"images": pictures, key: turns}, tmp_path)


def test_sharegpt_records(tmp_path):
    """As LLaMA-Factory writes them, in both of its spellings, and with bare parts, as TRL does"""
    plain = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}], "system": "be brief"}
    assert said(to_sample(plain, tmp_path)) == [("system", ["be brief"]), ("user", ["hi"]), ("assistant", ["ho"])]
    turns = [
        {"role": "user", "content": "<image>Who is it?<image>"},
        {"role": "assistant", "content": "Two men."},
        {"role": "user", "content": "And <video>here?"},
        {"role": "assistant", "content": "One."},
    ]
    sample = to_sample({"messages": turns, "images": ["1.jpg", "2.jpg"], "videos": ["v.mp4"]}, tmp_path)
    assert said(sample) == [
        ("user", ["1.jpg", "Who is it?", "2.jpg"]),
        ("assistant", ["Two men."]),
        ("user", ["And", "v.mp4", "here?"]),
        ("assistant", ["One."]),
    ]
    assert [type(m) for m in sample.media] == [Image, Image, Video]
    parts = [{"type": "image"}, {"type": "text", "text": "Who?"}]
    bare = {"messages": [{"role": "user", "content": parts}], "images": ["1.jpg"]}
    assert said(to_sample(bare, tmp_path)) == [("user", ["1.jpg", "Who?"])]
    with pytest.raises(PlaceholderError, match="2 pictures and its text 1 placeholders"):
        to_sample({**bare, "images": ["1.jpg", "2.jpg"]}, tmp_path)
    heard = {"messages": [{"role": "user", "content": "<audio>What?"}], "audios": ["a.wav"]}
    assert isinstance(to_sample(heard, tmp_path).media[0], Audio)
    html = {"conversations": [{"from": "human", "value": "What is <video> in HTML?"}]}
    assert said(to_sample(html, tmp_path)) == [("user", ["What is <video> in HTML?"])]
    with pytest.raises(InputError, match="a turn needs 'from'.*observation"):
        to_sample({"conversations": [{"from": "observation", "value": "x"}]}, tmp_path)


def test_captions_and_questions(tmp_path):
    caption = to_sample({"file_name": "a.png", "text": "a star", "id": 3}, tmp_path)
    assert said(caption) == [("user", ["a.png"]), ("assistant", ["a star"])] and caption.about == {"id": 3}
    answered = to_sample({"image": "a.png", "question": "how many?", "answer": 2}, tmp_path)
    assert said(answered) == [("user", ["a.png", "how many?"]), ("assistant", ["2"])]
    placed = to_sample({"images": ["a.png", "b.png"], "question": "<image> or <image>?", "answer": "b"}, tmp_path)
    assert said(placed)[0] == ("user", ["a.png", "or", "b.png", "?"])
    assert to_sample({"question": "1 + 1?", "answer": "2"}, tmp_path).media == []
    with pytest.raises(InputError, match="a caption and no picture"):
        to_sample({"image": "", "caption": "a star"}, tmp_path)
    with pytest.raises(InputError, match="answer is a text, not 'None'"):
        to_sample({"image": "a.png", "question": "?", "answer": None}, tmp_path)


ASKED = [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]}]
PREFERENCES = {
    "survey": {"image": "a.png", "prompt": "What?", "chosen": "A cat.", "rejected": "Two cats."},
    "llama-factory": {
        "conversations": [{"from": "human", "value": "<image>What?"}],
        "images": ["a.png"],
        "chosen": {"from": "gpt", "value": "A cat."},
        "rejected": {"from": "gpt", "value": "Two cats."},
    },
    "trl": {
        "prompt": ASKED,
        "images": ["a.png"],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}],
        "rejected": [{"role": "assistant", "content": "Two cats."}],
    },
    "trl, implicit prompt": {
        "images": ["a.png"],
        "chosen": [*ASKED, {"role": "assistant", "content": "A cat."}],
        "rejected": [*ASKED, {"role": "assistant", "content": "Two cats."}],
    },
    "openai": {
        "input": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "a.png"}},
                        {"type": "text", "text": "What?"},
                    ],
                }
            ]
        },
        "preferred_output": [{"role": "assistant", "content": "A cat."}],
        "non_preferred_output": [{"role": "assistant", "content": "Two cats."}],
    },
}


@pytest.mark.parametrize("form", PREFERENCES)
def test_preferences(form, tmp_path):
    sample = to_sample({**PREFERENCES[form], "spans": [[2, 5]]}, tmp_path)
    assert said(sample) == [("user", ["a.png", "What?"])]
    assert sample.images[0].source == tmp_path / "a.png"
    assert sample.about == {"chosen": "A cat.", "rejected": "Two cats.", "spans": [[2, 5]]}


def test_a_preference_must_be_of_answers(tmp_path):
    with pytest.raises(InputError, match="chosen is a text, not 'None'"):
        to_sample({"prompt": "What?", "chosen": None, "rejected": "x"}, tmp_path)
    with pytest.raises(InputError, match="must end with what the user says"):
        to_sample({"messages": OURS["messages"], "chosen": "a", "rejected": "b"}, tmp_path)


# Files


def test_files_are_read_by_number(tmp_path):
    lines = tmp_path / "data.jsonl"
    lines.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in (OURS, LLAVA, OURS)) + "\n\n", "utf-8")
    source = open_data(lines)
    assert source.size == 3
    assert [source.sample(i).messages[0].text for i in (2, 1, 0)] == ["ä", "What is this?", "ä"]
    assert source.sample(1).place == f"{lines}, line 2"
    records = tmp_path / "data.json"
    records.write_text(json.dumps([LLAVA, OURS, {**OURS, "kind": 'a "]" and \\"}' + "\\"}], indent=1))
    listed = open_data(records)
    assert listed.size == 3 and listed.sample(1) == source.sample(0) and listed.sample(2).about["kind"][-1] == "\\"
    assert listed.sample(0).place == f"{records}, record 1"
    assert open_data(records, tmp_path / "far").sample(0).images[0].source == tmp_path / "far" / "cat.jpg"


@pytest.mark.parametrize("where", ["", "images", "pictures"])
def test_pictures_lie_beside_or_in_a_folder_of_theirs(where, tmp_path):
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / "cat.jpg").write_bytes(picture_bytes(kind="JPEG"))
    (tmp_path / "data.json").write_text(json.dumps([OURS, LLAVA]))
    assert open_data(tmp_path / "data.json").sample(1).images[0].pixels.size == (8, 6)
    assert open_data(tmp_path).size == 2  # a folder with one data set


anything = st.recursive(
    st.text('"\\\\[]{},: \\né', max_size=8) | st.integers(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text('"}\\\\', max_size=2), inside, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listed=st.lists(st.dictionaries(st.text(max_size=3), anything, max_size=3), min_size=1), block=st.integers(1, 99)
)
def test_records_are_found_in_any_list(listed, block, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "BLOCK", block)
    file = tmp_path / "list.json"
    text = json.dumps(listed, indent=block % 2, ensure_ascii=block % 3 > 0).encode()
    file.write_bytes(text)
    assert [json.loads(text[start:end]) for start, end in index.records(file)] == listed


def test_a_reader_holds_where_records_lie_and_not_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "BLOCK", 64)  # lines go over several
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({**OURS, "number": i}) + "\n" for i in range(40)))
    source = open_data(file)
    assert [source.sample(i).about["number"] for i in (39, 0, 17)] == [39, 0, 17]
    assert not any(isinstance(value, str | list | dict) for value in vars(source).values())


def test_the_index_of_a_big_file_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("PANMODAL_CACHE", str(tmp_path / "cache"))
    file, made = tmp_path / "data.jsonl", []
    file.write_text("a\nb\n")

    def lines(path):
        made.append(path)
        return index.lines(path)

    for _ in range(2):
        assert index.indexed(file, lines).tolist() == [0, 2]
    assert len(made) == 2  # it is small
    monkeypatch.setattr(index, "KEPT", 4)
    for _ in range(2):
        assert index.indexed(file, lines).tolist() == [0, 2]
    assert len(made) == 3
    (kept,) = (tmp_path / "cache" / "indexes").iterdir()
    kept.write_bytes(b"damaged")
    assert index.indexed(file, lines).tolist() == [0, 2]
    file.write_text("a\nb\nc\n")
    assert index.indexed(file, lines).tolist() == [0, 2, 4]
    assert len(made) == 5


def test_a_bad_line_is_named(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"messages": []}\n{broken\n[]\n' + json.dumps({**LLAVA, "image": []}))
    source = open_data(file)
    source.sample(0)
    with pytest.raises(InputError, match="data.jsonl, line 2: not JSON"):
        source.sample(1)
    with pytest.raises(InputError, match="line 3: a record of no known form"):
        source.sample(2)
    with pytest.raises(PlaceholderError, match="line 4: the record has 0 pictures and its text 1 placeholders"):
        source.sample(3)


def test_files_that_are_no_data(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "strings.json").write_text('["a", "b"]')
    (tmp_path / "cut.json").write_text(json.dumps([OURS, LLAVA])[:-9])
    (tmp_path / "other.jsonl").write_text('{"speech": 1}\n')
    (tmp_path / "note.txt").write_text("hello")
    for missing in ("none.jsonl", "data.csv"):
        with pytest.raises(InputError, match=f"no data '.*{missing}'"):
            open_data(tmp_path / missing)
    for name, words in {
        "empty.jsonl": "is empty",
        "object.json": "no known form",
        "strings.json": "holds none",
        "cut.json": "may be cut off",
        "other.jsonl": "line 1: a record of no known form, with the fields speech; known forms: messages; conv",
        "note.txt": "begins with b'hello'.*known: a .jsonl",
    }.items():
        with pytest.raises(InputError, match=f"{name}.*{words}"):
            open_data(tmp_path / name)
    with pytest.raises(InputError, match="must hold one data set, and it has 5: cut.json, empty.jsonl"):
        open_data(tmp_path)


def test_coco_captions(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    for n in (9, 25):
        (tmp_path / "val2017" / f"{n:012d}.jpg").write_bytes(picture_bytes(n, "JPEG"))
    content = {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [],
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 6, "width": 8} for n in (9, 25)],
        "annotations": [
            {"image_id": 25, "id": 111, "caption": "A giraffe."},
            {"image_id": 9, "id": 112, "caption": "A plate."},
            {"image_id": 25, "id": 113, "caption": "Two giraffes."},
        ],
    }
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.write_text(json.dumps(content))
    for path in (file, tmp_path):
        source = open_data(path)
        assert source.size == 3
        sample = source.sample(0)
        assert said(sample) == [("user", ["000000000025.jpg"]), ("assistant", ["A giraffe."])]
        assert sample.about == {"image_id": 25, "id": 111} and sample.place == f"{file}, annotation 111"
        assert sample.images[0].pixels.size == (8, 6)
    instances = {**content, "annotations": [{"image_id": 9, "id": 1, "bbox": [0, 0, 1, 1]}]}
    file.write_text(json.dumps(instances))
    with pytest.raises(InputError, match=r"without a picture or a caption \('caption'\)"):
        open_data(file)
    file.write_text(json.dumps(content, indent=1))
    (tmp_path / "val2017" / "000000000025.jpg").unlink()
    with pytest.raises(InputError, match="tells of 000000000025.jpg, which is in none of"):
        open_data(file)


def test_tables_of_pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture_bytes())
    file = tmp_path / "data.csv"
    file.write_text('picture,caption\na.png,"a star,\nand more"\nb.png,x\nc.png\n', "utf-8-sig")
    source = open_data(tmp_path)
    assert source.size == 3
    assert said(source.sample(0)) == [("user", ["a.png"]), ("assistant", ["a star,\nand more"])]
    assert source.sample(0).images[0].pixels.size == (8, 6) and source.sample(1).place == f"{file}, line 4"
    with pytest.raises(InputError, match="line 5: the row has 1 fields and the first line names 2"):
        source.sample(2)
    for name, mark in (("q.tsv", "\t"), ("q.csv", ";")):
        asked = tmp_path / name
        asked.write_text(f"image{mark}question{mark}answer\npictures/a.png{mark}how many, then?{mark}2\n")
        assert said(open_data(asked).sample(0)) == [("user", ["a.png", "how many, then?"]), ("assistant", ["2"])]
    file.write_text("path,label\na.png,star\n")
    with pytest.raises(InputError, match=r"has the columns path, label; it needs a picture \(image, images"):
        open_data(file)
    file.write_text("image,caption\n")
    with pytest.raises(InputError, match="no rows"):
        open_data(file)


def write_tar(path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_webdataset_shards(tmp_path):
    """CC3M's layout of captions, and records with pictures in turn"""
    captions = {}
    for n in range(3):
        captions |= {
            f"{n:09d}.jpg": picture_bytes(n, "JPEG"),
            f"{n:09d}.json": json.dumps({"caption": "raw", "url": "x"}).encode(),
            f"{n:09d}.txt": f"caption {n}\n".encode(),
        }
    write_tar(tmp_path / "cc-000.tar", captions)
    asked = {"messages": [{"role": "user", "content": "<image> or <image>?"}], "images": ["gone", "gone"]}
    records = {
        "a/x.one.png": picture_bytes(1),
        "a/x.two.png": picture_bytes(2),
        "a/x.json": json.dumps(asked).encode(),
        "b/x.cls": b"7",
        "b/x.json": json.dumps(OURS).encode(),
        "b/" + "long" * 40 + ".json": json.dumps(OURS).encode(),
    }
    write_tar(tmp_path / "cc-001.tar", records)
    source = open_data(f"{tmp_path}/cc-{{000..001}}.tar")
    assert source.size == 6
    assert open_data(tmp_path).size == 6 and open_data(f"{tmp_path}/cc-*.tar").size == 6
    sample = source.sample(2)
    assert sample.messages[1].text == "caption 2" and sample.about == {"url": "x"}
    assert np.asarray(sample.images[0].pixels).mean() == pytest.approx(2, abs=1)
    assert sample.place == f"{tmp_path / 'cc-000.tar'}, 000000002"
    several = source.sample(3)
    assert [np.asarray(image.pixels).max() for image in several.images] == [1, 2]
    assert [p.text for p in several.messages[0].parts if isinstance(p, Text)] == ["or", "?"]
    assert source.sample(4).messages[0].text == source.sample(5).messages[0].text == "ä"
    with pytest.raises(InputError, match=r"no data '.*cc-002.tar', which '.*cc-\{000..002\}.tar' names"):
        open_data(f"{tmp_path}/cc-{{000..002}}.tar")


def test_tars_that_cannot_be_read(tmp_path):
    write_tar(tmp_path / "packed.tar", {"a.txt": b"x"}, "w:gz")
    write_tar(tmp_path / "other.tar", {"a.mp9": b"x"})
    write_tar(tmp_path / "cut.tar", {"a.png": picture_bytes(), "a.txt": b"x" * 9000})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:4000])
    write_tar(tmp_path / "broken.tar", {"k.json": b"{", "l.txt": b"a caption alone"})
    with pytest.raises(InputError, match="must be unpacked"):
        open_data(tmp_path / "packed.tar")
    with pytest.raises(InputError, match="no samples"):
        open_data(tmp_path / "other.tar")
    with pytest.raises(InputError, match="cut.tar cannot be read as a tar"):
        open_data(tmp_path / "cut.tar")
    source = open_data(tmp_path / "broken.tar")
    with pytest.raises(InputError, match="broken.tar, k: not JSON"):
        source.sample(0)
    with pytest.raises(InputError, match="broken.tar, l: a record of no known form, with the fields caption"):
        source.sample(1)


def test_patterns_of_files(tmp_path):
    for name in ("a-08.x", "a-09.x", "a-10.x", "b-09.x"):
        (tmp_path / name).touch()
    names = [path.name for path in expanded(f"{tmp_path}/{{a,b}}-{{09..09}}.x")]
    assert names == ["a-09.x", "b-09.x"]
    assert [path.name for path in expanded(f"{tmp_path}/a-{{08..10}}.x")] == ["a-08.x", "a-09.x", "a-10.x"]
    with pytest.raises(InputError, match="names 4 files that end in .x"):
        open_data(f"{tmp_path}/*.x")


# Tables of Hugging Face's


def test_rows_hold_pictures_as_their_columns_do(tmp_path):
    stored = {"bytes": picture_bytes(3), "path": None}
    rows = [
        {"image": stored, "caption": "a star", "n": None},
        {"images": [stored, {"bytes": None, "path": "b.png"}], "question": "same?", "answer": "no"},
        {"image": Pil.new("RGB", (4, 4)), "text": "black"},
        {"image": 7, "text": "no picture"},
    ]
    source = Rows(rows, tmp_path)
    assert source.sample(0).images[0].pixels.size == (8, 6) and source.sample(0).about == {}
    assert source.sample(1).images[1].source == tmp_path / "b.png"
    assert source.sample(2).images[0].pixels.size == (4, 4)
    with pytest.raises(InputError, match="row 4: a record's image is a path or a file's content, not 7"):
        source.sample(3)
    with pytest.raises(InputError, match="row 1: a record of no known form, with the fields label"):
        Rows([{"label": 1}], tmp_path)


def test_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture_bytes(n))
    table = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / f"{n}.png") for n in range(3)], "caption": [f"c{n}" for n in range(3)]}
    ).cast_column("image", datasets.Image())
    table.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "splits"))
    table.to_parquet(str(tmp_path / "a.parquet"))
    for path in (tmp_path / "saved", tmp_path / "splits" / "train", tmp_path / "a.parquet"):
        source = open_data(path)
        assert source.size == 3
        sample = source.sample(2)
        assert sample.messages[1].text == "c2" and np.asarray(sample.images[0].pixels).max() == 2
    with pytest.raises(InputError, match="holds the splits train; name one of them"):
        open_data(tmp_path / "splits")


def test_what_is_missing_is_named(tmp_path):
    try:
        import datasets  # noqa: F401
    except ImportError:
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        with pytest.raises(InputError, match=r"pip install 'panmodal\[hf\]'"):
            open_data(tmp_path / "a.parquet")
    else:
        pytest.skip("the extra hf is here")


# NLVR


def write_nlvr(folder, split: str, with_directory: bool) -> None:
    """Two sentences, in the layout of the splits with and without `directory`"""
    lines = []
    for n, (identifier, label) in enumerate((("10-0", "true"), ("7-2", "false"))):
        line = {"sentence": f"There is a tower {n}.", "identifier": identifier, "label": label}
        line |= {"structured_rep": [[{"type": "square"}]]} | ({"directory": str(n)} if with_directory else {})
        lines.append(json.dumps(line))
        images = folder / split / "images" / str(n)
        images.mkdir(parents=True)
        for k in range(6):
            (images / f"{split}-{identifier}-{k}.png").write_bytes(picture_bytes(10 * n + k))
    (folder / split / f"{split}.json").write_text("\n".join(lines) + "\n")
    with tarfile.open(folder / f"{split}.tar", "w") as tar:
        tar.add(folder / split, split)


@pytest.mark.parametrize("split", ["dev", "hidden"])
@pytest.mark.parametrize("where", ["{0}", "{0}/{0}.json", "{0}.tar"])
def test_nlvr_from_a_folder_or_its_tar(split, where, tmp_path):
    write_nlvr(tmp_path, split, with_directory=split == "dev")
    source = open_data(tmp_path / where.format(split))
    assert isinstance(source, Nlvr) and source.size == 12
    sample = source.sample(7)
    assert sample.messages[0].text == "There is a tower 1. True or false?" and sample.messages[1].text == "false"
    assert [image.pixels.size for image in sample.images] == [(2, 6)] * 3
    assert np.asarray(sample.images[0].pixels).max() == 11
    assert sample.about == {"identifier": "7-2", "order": 1}  # and nothing of what the picture holds
    assert f"{split}/{split}.json, line 2, picture 1" in sample.place
    assert "structured_rep" not in str(vars(source))


def test_splits_of_nlvr_by_name(tmp_path):
    for split in ("dev", "hidden"):
        write_nlvr(tmp_path, split, with_directory=True)
    assert nlvr(tmp_path, "hidden").split == "hidden" and nlvr(tmp_path / "dev", "dev").size == 12
    with pytest.raises(InputError, match="has neither test/, test.tar nor test.json"):
        nlvr(tmp_path, "test")
    with pytest.raises(InputError, match="are splits of NLVR; name one of them"):
        open_data(tmp_path)
    next((tmp_path / "dev" / "images").rglob("dev-7-2-3.png")).unlink()
    with pytest.raises(InputError, match="line 2, picture 3: there is no picture dev-7-2-3.png"):
        nlvr(tmp_path, "dev").sample(9)


@pytest.mark.parametrize(("split", "sentences", "true"), [("dev", 989, 547), ("hidden", 985, 546)])
def test_the_published_nlvr(split, sentences, true, nlvr_data):
    source = nlvr(nlvr_data, split)
    assert source.size == 6 * sentences
    labels = [source.sample(6 * i).messages[1].text for i in range(sentences)]
    assert labels.count("true") == true and labels.count("false") == sentences - true
    shown = [image.pixels for i in range(0, source.size, 991) for image in source.sample(i).images]
    assert {box.size for box in shown} == {(100, 100)} and {box.getpixel((0, 0)) for box in shown} == {(211, 211, 211)}


def test_system_turns_stay(tmp_path):
    said_so = {"messages": [m.to_json() for m in (system("be brief"), user("hi"), assistant("ho"))]}
    assert to_sample(said_so, tmp_path).messages[0] == system("be brief")
