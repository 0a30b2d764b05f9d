"""Tiny data sets in the layouts in which the real ones are published."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image as Pil


def picture(shade: int = 0) -> bytes:
    out = io.BytesIO()
    Pil.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    """Files by name: bytes, text, or what is written as JSON, of a name in .jsonl one a line."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(line) + "\n" for line in content))
        else:
            path.write_text(json.dumps(content))
    return folder


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def table(columns: str, *rows: tuple[Any, ...]) -> str:
    return "\n".join("\t".join(map(str, row)) for row in (columns.split(), *rows)) + "\n"


def pope(folder: Path) -> Path:
    asked = [("a.jpg", "Is there a dog in the image?", "yes"), ("a.jpg", "Is there a cat in the image?", "no")]
    records = [
        {"question_id": n, "image": name, "text": text, "label": label}
        for n, (name, text, label) in enumerate(asked, 1)
    ]
    kinds = ("adversarial", "random", "popular")
    return write(folder, {f"coco_pope_{kind}.json": lines(*records) for kind in kinds} | {"val2014/a.jpg": picture()})


def mme(folder: Path, results: bool = False, answers: tuple[str, ...] = ("Yes", "No", "No.", "maybe")) -> Path:
    """The official tool's files: existence with two pictures, code_reasoning with one."""

    def rows(name: str, said: tuple[str, ...]) -> str:
        asked = [
            (f"{name}{i // 2}.png", f"Is it {i}?  Please answer yes or no.", ("Yes", "No")[i % 2])
            for i in range(len(said))
        ]
        return "".join(
            "\t".join([*row, *([text] if results else [])]) + "\n" for row, text in zip(asked, said, strict=True)
        )

    return write(folder, {"existence.txt": rows("e", answers), "code_reasoning.txt": rows("c", ("yes", "no"))})


def vqa(folder: Path, prefix: str = "v2_") -> Path:
    answers = [
        [{"answer": "two", "answer_id": i} for i in range(10)],
        [{"answer": a, "answer_id": i} for i, a in enumerate(["a dog"] * 4 + ["cat"] * 2 + ["dogs"] * 4)],
    ]
    notes = [
        {"question_id": 9000 + i, "image_id": 42, "question_type": "what", "answer_type": kind, "answers": told}
        for i, (kind, told) in enumerate(zip(("number", "other"), answers, strict=True))
    ]
    asked = [{"question_id": 9000 + i, "image_id": 42, "question": f"What {i}?"} for i in range(2)]
    return write(folder, {
        f"{prefix}mscoco_val2014_annotations.json": {"annotations": notes},
        f"{prefix}OpenEnded_mscoco_val2014_questions.json": {"questions": asked},
        "val2014/COCO_val2014_000000000042.jpg": picture(),
    })  # fmt: skip


def textvqa(folder: Path) -> Path:
    data = [
        {
            "question_id": 34602 + i,
            "image_id": "00ff",
            "question": f"What Brand {i}?",
            "answers": ["it's", *["dakota"] * 9],
        }
        for i in range(2)
    ]
    return write(folder, {"TextVQA_0.5.1_val.json": {"data": data}, "train_images/00ff.jpg": picture()})


def scienceqa(folder: Path) -> Path:
    problem = {"question": "Which?", "choices": ["north", "south"], "answer": 1, "hint": "A map.", "image": "image.png"}
    problems = {
        "4": {**problem, "subject": "social science", "grade": "grade6"},
        "7": {**problem, "subject": "natural science", "grade": "grade8", "image": None, "hint": "", "answer": 0},
        "9": {**problem, "subject": "language science", "grade": "grade2"},
    }
    splits = {"test": ["4", "7"], "train": ["9"]}
    return write(folder, {"problems.json": problems, "pid_splits.json": splits, "images/test/4/image.png": picture()})


def mmbench(folder: Path) -> Path:
    shown = base64.b64encode(picture()).decode()
    columns = "index question hint A B C D answer category image source l2-category"
    rest = ("object_localization", shown, "x", "finegrained_perception")
    rows = [
        (8, "Which one?", "", "left", "right", "", "", "A", *rest),
        (9, "Which other?", "", "up", "down", "", "", "B", *rest),
        (1000008, "Which one?", "", "right", "left", "", "", "B", *rest),
        (1000009, "Which other?", "", "down", "up", "", "", "A", *rest),
    ]
    return write(folder, {"mmbench_dev_20230712.tsv": table(columns, *rows)})


def seed(folder: Path) -> Path:
    record = {"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four", "question": "How many?"}
    questions = [
        {**record, "answer": "B", "data_id": "1_0", "data_type": "image", "question_id": "101", "question_type_id": 5},
        {
            **record,
            "answer": "D",
            "data_id": "v.mp4",
            "data_type": "video",
            "question_id": "v5_3",
            "question_type_id": 10,
        },
    ]
    types = {"Instances Counting": 5, "Action Recognition": 10}
    content = {"questions": questions, "question_type": types}
    return write(folder, {"SEED-Bench.json": content, "SEED-Bench-image/1_0": picture()})


def mmmu(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    row = {"options": "['A rise', \"A fall\"]", "image_1": {"bytes": picture(), "path": "a.png"}, "image_2": None}
    rows = [
        {
            **row,
            "id": "validation_Math_1",
            "question": "What does <image 1> show?",
            "answer": "B",
            "question_type": "multiple-choice",
        },
        {
            **row,
            "id": "validation_Math_2",
            "question": "<image 1> How many?",
            "answer": "['2.5', 'two']",
            "question_type": "open",
            "options": "[]",
        },
    ]
    (folder / "Math").mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(rows), folder / "Math/validation-00000-of-00001.parquet")
    return folder


def hallusion(folder: Path) -> Path:
    """Two questions about a figure and its edited form, and one of them without any."""
    record = {
        "category": "VS",
        "subcategory": "chart",
        "visual_input": "1",
        "set_id": "0",
        "sample_note": "x",
        "gt_answer_details": "x",
    }

    def ask(figure: int, question: int, label: int) -> dict[str, Any]:
        file = f"./hallusion_bench/VS/chart/0_{figure}.png" if figure else None
        return {
            **record,
            "figure_id": str(figure),
            "question_id": str(question),
            "question": f"Is it {question}?",
            "gt_answer": str(label),
            "filename": file,
        }

    records = [ask(0, 0, 1), ask(1, 0, 1), ask(2, 0, 0), ask(1, 1, 0), ask(2, 1, 1)]
    return write(folder, {"HallusionBench.json": records, "hallusion_bench/VS/chart/0_1.png": picture()})


def refcoco(folder: Path, name: str = "refcoco", authors: str = "unc") -> Path:
    import pickle

    ref = {"ref_id": 1, "ann_id": 11, "image_id": 5, "category_id": 1, "split": "val", "file_name": "x"}
    refs = [
        {
            **ref,
            "sentences": [
                {"sent_id": 70 + i, "sent": text, "raw": text, "tokens": text.split()}
                for i, text in enumerate(("left dog", "the dog"))
            ],
        }
    ]
    refs.append(
        {**ref, "split": "testA", "sentences": [{"sent_id": 80, "sent": "cat", "raw": "cat", "tokens": ["cat"]}]}
    )
    instances = {
        "images": [{"id": 5, "file_name": "COCO_train2014_000000000005.jpg", "width": 200, "height": 100}],
        "annotations": [{"id": 11, "bbox": [20, 10, 100, 50], "image_id": 5}],
        "categories": [],
    }
    return write(folder, {
        f"{name}/refs({authors}).p": pickle.dumps(refs, protocol=2), f"{name}/instances.json": instances,
        "images/mscoco/images/train2014/COCO_train2014_000000000005.jpg": picture(),
    })  # fmt: skip


def chartqa(folder: Path) -> Path:
    human = [
        {"imgname": "a.png", "query": "How many?", "label": "14"},
        {"imgname": "a.png", "query": "Which?", "label": "Red"},
    ]
    made = [{"imgname": "b.png", "query": "What share?", "label": "52.5"}]
    files = {"test_human.json": human, "test_augmented.json": made, "png/a.png": picture(), "png/b.png": picture(9)}
    return write(folder, {f"ChartQA Dataset/test/{name}": content for name, content in files.items()})


def karpathy(folder: Path, name: str = "flickr30k") -> Path:
    """Three pictures to be tested by, with five captions each, and a sixth of the first; and one to train on."""

    def image(number: int, split: str, captions: int = 5) -> dict[str, Any]:
        said = [{"raw": f"picture {number}, caption {i}"} for i in range(captions)]
        file = {"filename": f"{number}.jpg", "cocoid": 100 + number}
        return {**file, "sentences": said, "split": split}

    images = [image(1, "test", 6), image(2, "train"), image(3, "test"), image(4, "test")]
    files = {f"flickr30k-images/{one['filename']}": picture(40 * i) for i, one in enumerate(images)}
    return write(folder, {f"dataset_{name}.json": {"images": images}, **files})


def coco_instances(folder: Path) -> Path:
    """A square in one picture, of a polygon; in another a bar, of run lengths, and a crowd, which is left out."""
    note = {"category_id": 3, "iscrowd": 0}
    square = {
        **note,
        "id": 7,
        "image_id": 1,
        "bbox": [2, 2, 4, 4],
        "area": 16,
        "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]],
    }
    counts = {"size": [8, 8], "counts": [16, 16, 32]}
    bar = {**note, "id": 8, "image_id": 2, "bbox": [2, 0, 2, 8], "area": 16, "segmentation": counts}
    crowd = {**bar, "id": 9, "iscrowd": 1}
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in (1, 2)]
    content = {"images": images, "annotations": [crowd, bar, square], "categories": [{"id": 3, "name": "car"}]}
    pictures = {f"val2017/{i}.jpg": picture(60 * i) for i in (1, 2)}
    return write(folder, {"annotations/instances_val2017.json": content, **pictures})


def davis(folder: Path, moved: int = 0) -> Path:
    """A sequence of four frames with two objects, of which the second is `moved` to the right in the third frame."""
    files: dict[str, Any] = {"ImageSets/2017/val.txt": "bear\n"}
    for frame in range(4):
        pixels = Pil.new("P", (40, 20))
        pixels.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        right = moved if frame == 2 else 0
        pixels.paste(1, (2, 2, 10, 10))
        pixels.paste(2, (20 + right, 5, 30 + right, 15))
        out = io.BytesIO()
        pixels.save(out, "PNG")
        files[f"Annotations/480p/bear/{frame:05}.png"] = out.getvalue()
    return write(folder, files)
