"""Captions' metrics: by hand, and as COCO's evaluation with Java computes them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import panmodal as pm
from panmodal.evaluation import PUBLISHED, score
from panmodal.evaluation.captions import caption_units, cider, grams, rouge_l, told
from panmodal.evaluation.ptb import words
from tests.evaluation import layouts
from tests.evaluation.layouts import write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A man's dog can't sit, isn't it?", "a man 's dog ca n't sit is n't it"),
        ("cannot gonna 'tis y'all o'clock ma'am 'em", "can not gon na 't is y' all o'clock ma'am 'em"),
        ("Mr. Smith on Charlton St. in the U.S. at 5:30 p.m.", "mr. smith on charlton st. in the u.s. at 5:30 p.m."),
        ("close-up of a red/white t-shirt #1 & 3.5% of $5", "close-up of a red/white t-shirt # 1 & 3.5 % of $ 5"),
        ("a (big) [sign]... reads “K.”!", "a -lrb- big -rrb- -lsb- sign -rsb- reads k"),
        ("what?! 7th and 122nd; 1,000 -- www.x.org", "what ?! 7th and 122nd 1,000 www.x.org"),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert words([text]) == [expected.split()]


def test_a_letter_keeps_its_full_stop_where_no_sentence_begins():
    assert words(["it reads K.", "a dog"]) == [["it", "reads", "k."], ["a", "dog"]]
    assert words(["it reads K.", "A dog"]) == [["it", "reads", "k"], ["a", "dog"]]


@pytest.fixture(scope="module")
def released(fixtures):
    folder = fixtures / "captions"
    lines = (folder / "coco_val2017_leave_one_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((folder / "expected.json").read_text())


def test_as_the_official_evaluation(released, tmp_path):
    """2,500 pictures, through the command's way: tokens, each picture's CIDEr, and all the metrics."""
    pictures, expected = released
    said = words([one["candidate"] for one in pictures])
    assert [" ".join(some) for some in said[:200]] == [one["tokens"] for one in pictures[:200]]
    units = caption_units([one["candidate"] for one in pictures], [one["references"] for one in pictures])
    assert [unit["cider"] for unit in units] == pytest.approx([one["cider"] for one in pictures], abs=1e-9)
    notes = [
        {"image_id": one["image_id"], "id": i, "caption": text}
        for i, one in enumerate(pictures)
        for text in one["references"]
    ]
    images = [{"id": one["image_id"], "file_name": f"{one['image_id']:012d}.jpg"} for one in pictures]
    results = [{"image_id": one["image_id"], "caption": one["candidate"]} for one in reversed(pictures)]
    write(
        tmp_path,
        {"annotations/captions_val2017.json": {"images": images, "annotations": notes}, "results.json": results},
    )
    report = score("coco-captions", tmp_path / "results.json", tmp_path)
    assert report.metrics == pytest.approx(
        {name: value for name, value in expected.items() if name != "meteor"}, abs=1e-9
    )
    assert all(low < report.metrics[name] < high for name, (low, high) in report.intervals.items())


def test_by_hand():
    captions = told(["a red dog", "a cat sat there"], [["a dog", "one red dog runs"], ["the cat sat there now"]])
    precision, recall, beta = 2 / 3, 1, 1.44
    assert rouge_l(captions)[0] == pytest.approx((1 + beta) * precision * recall / (recall + beta * precision))
    tables = list(grams(captions.captions))
    # Every n-gram of the second's references is of one picture alone, and so weighs log 2.
    same = [3 / math.sqrt(4 * 5), 2 / math.sqrt(3 * 4), 1 / math.sqrt(2 * 3), 0]
    assert cider(captions, tables, plain=True)[1] == pytest.approx(10 * np.mean(same))
    assert cider(captions, tables)[1] == pytest.approx(10 * np.mean(same) * math.exp(-1 / 72))


def test_a_caption_of_nothing():
    (unit,) = caption_units([""], [["a dog"]])
    assert unit["cider"] == unit["rouge_l"] == unit["length"] == 0


def captions(folder, name, images, **rest):
    notes = [{"image_id": image["id"], "id": i, "caption": text} for i, (image, text) in enumerate(images)]
    unique = list({image["id"]: image for image, _ in images}.values())
    return write(folder, {name: {"images": unique, "annotations": notes, **rest}})


def test_coco_and_nocaps(tmp_path):
    images = [
        ({"id": i, "file_name": f"{i}.jpg", "domain": d}, t)
        for i, d, t in ((7, "near-domain", "a dog runs"), (9, "out-domain", "a cat"))
    ]
    captions(tmp_path, "nocaps_val_4500_captions.json", images)
    captions(tmp_path, "annotations/captions_val2014.json", images)
    write(
        tmp_path,
        {
            "val2014/7.jpg": layouts.picture(),
            "r.json": [{"image_id": 9, "caption": "a dog"}, {"image_id": 7, "caption": "a dog runs"}],
        },
    )
    metrics = score("nocaps", tmp_path / "r.json", tmp_path).metrics
    assert metrics.keys() == {
        "bleu_1",
        "bleu_2",
        "bleu_3",
        "bleu_4",
        "rouge_l",
        "cider",
        "near_domain_cider",
        "out_domain_cider",
    }
    assert score("coco-captions", tmp_path / "r.json", tmp_path).metrics["bleu_1"] == pytest.approx(4 / 5)
    first, _ = PUBLISHED["coco-captions"].examples(tmp_path, "val2014")
    assert first.messages[0].images[0].pixels.size == (8, 8)
    captions(tmp_path, "annotations/captions_val2017.json", images)
    with pytest.raises(pm.InputError, match="has 2 of .*captions_val2014.json.*name one by --split"):
        score("coco-captions", tmp_path / "r.json", tmp_path)


def test_flickr30k(tmp_path):
    sentences = [{"raw": "Two dogs run.", "tokens": [], "sentid": 0, "imgid": 0}]
    image = {"filename": "100.jpg", "imgid": 0, "sentids": [0], "sentences": sentences, "split": "test"}
    coco = {**image, "filepath": "val2014", "cocoid": 5}
    write(tmp_path, {
        "dataset_flickr30k.json": {"images": [image, {**image, "filename": "2.jpg", "split": "val"}], "dataset": "flickr30k"},
        "dataset_coco.json": {"images": [coco]},
        "results_20130124.token": "100.jpg#0\tTwo dogs run .\n100.jpg#1\tDogs .\n",
        "flickr30k-images/100.jpg": layouts.picture(),
        "r.json": [{"image_id": "100.jpg", "caption": "two dogs run"}], "c.json": [{"image_id": 5, "caption": "two dogs"}],
    })  # fmt: skip
    for split in ("test", "all"):
        assert score("flickr30k", tmp_path / "r.json", tmp_path, split=split).metrics["bleu_2"] == pytest.approx(1)
        assert PUBLISHED["flickr30k"].examples(tmp_path, split)[0].messages[0].images[0].pixels
    assert score("coco-captions", tmp_path / "c.json", tmp_path, split="karpathy").metrics["bleu_1"] == pytest.approx(
        math.exp(-0.5)
    )
