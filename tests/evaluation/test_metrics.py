"""Metrics against values worked out by hand, or by another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import panmodal as pm
from panmodal.evaluation.bootstrap import named, tally
from panmodal.evaluation.choices import mathvista_answer, mmbench_choice, mmmu_choice, mmmu_open, scienceqa_choice
from panmodal.evaluation.metrics import clip_score, ranks, ref_clip_score, retrieval_scores, top_k_accuracy
from panmodal.evaluation.regions import boundary_f, box_iou, coco_precision, j_and_f, mean_iou
from panmodal.evaluation.short_answers import anls, exact, relaxed, textvqa_accuracy, vqa_accuracy


def test_intervals_are_those_of_a_mean():
    """Of 400 hits in half of the cases the mean is normal: 0.5 give or take 1.96 times 0.025."""
    found = tally([{"accuracy": float(i % 2)} for i in range(400)])
    low, high = found.intervals["accuracy"]
    assert (
        found.metrics == {"accuracy": 0.5}
        and low == pytest.approx(0.451, abs=0.006)
        and high == pytest.approx(0.549, abs=0.006)
    )
    assert tally([{"accuracy": float(i % 2)} for i in range(400)]) == found  # the same seed


def test_a_metric_may_be_of_some_units_and_of_several_means():
    units = [{"a": 1.0, "unparsed": 2}, {"a": 0.0, "b": 3.0}, {"b": 5.0, "unparsed": 1}]
    found = tally(units, lambda means: {"sum": means["a"] + means["b"]})
    assert found.metrics == {"sum": 4.5} and found.unparsed == 3
    low, high = found.intervals["sum"]
    assert 3 <= low <= 4.5 <= high <= 6


def test_names():
    assert named("Art & Design") == "art_and_design" and named("OCR") == "ocr" and named("yes/no") == "yes_no"


ANSWERS = ["yes"] * 3 + ["no"] * 7


@pytest.mark.parametrize(
    ("answer", "answers", "value"),
    [
        ("yes", ANSWERS, (3 * 2 / 3 + 7) / 10),
        ("No.", ANSWERS, 1),  # cleaned, as they differ
        ("No.", ["no"] * 10, 0),  # and here not
        ("no\n", ["no"] * 10, 1),
        ("dont know", ["don't know"] * 5 + ["x"] * 5, 1),
        ("a red, blue-green cup!", ["red blue green cup"] * 9 + ["x"], 1),
        ("none", ["0"] * 2 + ["zero"] * 2 + ["x"] * 6, 1),
        ("1,000", ["1000"] * 9 + ["x"], 1),
        ("2.5", ["2.5"] * 9 + ["x"], 1),
        ("u.s.", ["us"] * 9 + ["x"], 1),
    ],
)
def test_vqa_accuracy(answer, answers, value):
    assert vqa_accuracy(answer, answers) == pytest.approx(value)


def test_textvqa_always_cleans():
    assert textvqa_accuracy("No.", ["no"] * 10) == 1 and textvqa_accuracy("Levi's", ["levi 's"] * 10) == 1


def test_documents_and_charts():
    assert anls("Hello  World", ["hello world", "x"]) == 1 and anls("hello", ["world"]) == 0
    assert (
        anls("hallo", ["hello"]) == pytest.approx(0.8) and anls("abcd", ["abxy"]) == 0.5 and anls("abc", ["axy"]) == 0
    )
    assert relaxed("104", "100") and not relaxed("106", "100") and relaxed("5%", "0.05") and relaxed("-19.2", "-20")
    assert relaxed("Red", "red") and not relaxed("0.01", "0") and relaxed("0", "0")
    assert exact("Yes.", "yes") and not exact("yes it is", "yes")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" B ", "B"),
        ("C. south", "C"),
        ("So. The answer is A.", "A"),
        ("The answer is D, clearly", "D"),
        ("b", None),
        ("F", None),
        ("", None),
    ],
)
def test_scienceqa_choice(answer, letter):
    assert scienceqa_choice(answer) == letter


OPTIONS = {"A": "a cat", "B": "two dogs", "C": "12"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B)", "B"),
        ("It must be B.", "B"),
        ("B is what I would say of it", None),
        ("A or B", None),
        ("Two dogs there", "B"),
        ("the answer is C because of what I see there", "C"),
        ("", None),
    ],
)
def test_mmbench_choice(answer, letter):
    assert mmbench_choice(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(A) no, it is (C)", "C"),
        ("either A or B then", "B"),
        ("I can see there are two dogs", "B"),
        ("two dogs", None),
        ("Beyond", None),
        ("", None),
    ],
)
def test_mmmu_choice(answer, letter):
    assert mmmu_choice(answer, list("ABC"), OPTIONS) == letter


def test_mmmu_open():
    assert mmmu_open("So the result is 1,250.004", "1250") and mmmu_open("x = 3\ny = 2.5", ["2.5", "x"])
    assert mmmu_open("the capital is tampa bay", ["Tampa", "Florida"]) and not mmmu_open("2.51", "2.5")
    assert mmmu_open("answer b ", "B") and not mmmu_open("abc", "b")


def test_mathvista_answers():
    choices = ["3 cm", "4 cm"]
    assert (
        mathvista_answer("(B) 4 cm", choices, "text", None) == mathvista_answer("4 cm", choices, "text", None) == "4 cm"
    )
    assert (
        mathvista_answer("B.", choices, "text", None) == "4 cm"
        and mathvista_answer("5 cm", choices, "text", None) is None
    )
    assert (
        mathvista_answer('The answer is "7".', [], "integer", 1.0)
        == mathvista_answer("There are 7 of them", [], "integer", 1.0)
        == "7"
    )
    assert (
        mathvista_answer("about 1,234.56", [], "float", 1.0) == "1234.6"
        and mathvista_answer("5 or 6", [], "integer", 1.0) is None
    )
    assert mathvista_answer("[1, 2]", [], "list", None) == "[1, 2]"


def test_retrieval():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.2, 0.6], [0.3, 0.3, 0.3]])
    fits = torch.eye(3, dtype=torch.bool)
    assert ranks(similarity, fits).tolist() == [1, 3, 3]
    scores = retrieval_scores(similarity, fits)
    assert scores == {
        "recall_at_1": pytest.approx(1 / 3),
        "recall_at_5": 1,
        "recall_at_10": 1,
        "mean_rank": pytest.approx(7 / 3),
        "median_rank": 3,
    }
    fits[1, 0] = True
    assert ranks(similarity, fits).tolist() == [1, 1, 3]


def test_top_k():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.8, 0.1, 0.05]])
    assert [top_k_accuracy(scores, torch.tensor([2, 2]), k) for k in (1, 2, 3, 9)] == [0, 0.5, 1, 1]


def test_clip_score():
    images, texts = torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[0.6, 0.8], [-0.6, 0.8]])
    assert clip_score(images, texts).tolist() == pytest.approx([1.5, 0])
    near = ref_clip_score(images, texts, [torch.tensor([[0.0, 1], [1, 0]]), torch.tensor([[0.0, 1]])])
    assert near.tolist() == pytest.approx([2 * 1.5 * 0.8 / 2.3, 0])


def test_boxes():
    iou = box_iou(torch.tensor([[0.0, 0, 4, 2], [9, 9, 9, 9]]), torch.tensor([[2.0, 0, 6, 2], [0, 0, 4, 2]]))
    assert iou[0].tolist() == pytest.approx([1 / 3, 1]) and iou[1].tolist() == [0, 0]


def test_mean_iou():
    truth, said = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 1, 1]])
    assert mean_iou(said, truth, 3) == pytest.approx((1 / 2 + 1 / 2) / 2)


def disk(x: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(200), indexing="ij")
    return (rows - 60) ** 2 + (columns - x) ** 2 < radius**2


def edges(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixel by pixel, as DAVIS defines a boundary"""
    height, width = mask.shape
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        if any(
            mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)] for dy, dx in ((0, 1), (1, 0), (1, 1))
        )
    }


def test_boundaries():
    truth = disk(100, 40)
    assert boundary_f(truth, truth) == 1 and boundary_f(disk(101, 40), truth) == 1  # two pixels are near enough
    empty = torch.zeros_like(truth)
    assert boundary_f(empty, truth) == boundary_f(truth, empty) == 0 and boundary_f(empty, empty) == 1
    said = disk(108, 44)
    ours, theirs = edges(said.numpy()), edges(truth.numpy())
    reach = math.ceil(0.008 * math.hypot(120, 200))
    near = lambda a, b: sum(any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in b) for y, x in a) / len(a)  # noqa: E731
    precision, recall = near(ours, theirs), near(theirs, ours)
    assert boundary_f(said, truth) == pytest.approx(2 * precision * recall / (precision + recall))
    whole = j_and_f(torch.stack([truth, said]), torch.stack([truth, truth]))
    assert (
        whole["f"] == pytest.approx((1 + boundary_f(said, truth)) / 2)
        and whole["j_and_f"] == (whole["j"] + whole["f"]) / 2
    )


def test_coco_precision(capsys):
    pytest.importorskip("pycocotools")
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 3, "name": "dog"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "bbox": [0, 0, 50, 50],
                "area": 2500,
                "iscrowd": 0,
                "segmentation": {"size": [100, 100], "counts": [0, 5000, 5000]},
            }
        ],
    }
    box = {"image_id": 1, "category_id": 3, "score": 0.9}
    scores = coco_precision(truth, [{**box, "bbox": [0, 0, 50, 40]}])
    assert (
        scores["ap_75"] == pytest.approx(1)
        and scores["ap"] == pytest.approx(0.7)
        and scores["ar_100"] == pytest.approx(0.7)
    )
    masks = coco_precision(truth, [{**box, "segmentation": {"size": [100, 100], "counts": [0, 4000, 6000]}}], "segm")
    assert masks["ap"] == pytest.approx(0.7) and capsys.readouterr().out == ""
    assert coco_precision(truth, [])["ap"] == 0


def test_coco_precision_without_pycocotools(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.coco", None)
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[coco\]'"):
        coco_precision({}, [{}])
