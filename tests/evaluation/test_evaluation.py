"""Metrics against values worked out by hand, and what a report holds."""

from __future__ import annotations

import pytest
import torch

import panmodal as pm
from panmodal.evaluation import TASKS
from panmodal.evaluation.metrics import accuracy, exact_match, normalised, pearson, recall_at
from panmodal.evaluation.segmentation import centre, depths
from panmodal.playground import KINDS, crowded_scene, masks
from tests.families.small import small


def test_answers_are_compared_as_people_read_them():
    assert normalised("  Two  red\ncircles. ") == "two red circles"
    assert exact_match("Yes.", "yes") and exact_match('"2"', "2")
    assert not exact_match("22", "2") and not exact_match("", "no")


def test_recall():
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.2, 0.6], [0.3, 0.2, 0.1]])
    fits = torch.eye(3, dtype=torch.bool)
    assert recall_at(1, similarity, fits).tolist() == [True, False, False]
    assert recall_at(2, similarity, fits).tolist() == [True, False, False]
    assert recall_at(9, similarity, fits).tolist() == [True, True, True]
    fits[1, 0] = True  # a second item that fits counts as much
    assert recall_at(1, similarity, fits).tolist() == [True, True, False]


def test_accuracy():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert accuracy(scores, torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("task", TASKS)
def test_a_report(task):
    model = small({"playground/vqa": "llava", "playground/segment": "sam"}.get(task, "clip"), std=0.3)
    count = 100 if task != "playground/segment" else 4
    seen: list[tuple[int, int]] = []
    report = pm.evaluate(model, task, split="held-out", count=count, progress=lambda done, of: seen.append((done, of)))
    told = report.to_json()
    assert told["task"] == task and told["split"] == "held-out" and told["examples"] == count
    assert all(0 <= v <= 1 or k == "iou_correlation" for k, v in told["metrics"].items() if k != "by_kind")
    assert seen[-1] == (count, count)
    assert pm.evaluate(model, task, split="held-out", count=count).to_json() == told


def test_every_kind_is_asked_equally_often():
    report = pm.evaluate(small("llava"), "playground/vqa", count=len(KINDS))
    assert set(report.metrics["by_kind"]) == set(KINDS)
    assert report.metrics["question_only"] == 1.0  # of a single question a kind


def test_what_cannot_be_run():
    with pytest.raises(pm.InputError, match="did you mean 'playground/vqa'"):
        pm.evaluate(small("llava"), "playground/vq")
    with pytest.raises(pm.InputError, match="asks for a Contrastive model"):
        pm.evaluate(small("llava"), "playground/zero-shot")
    with pytest.raises(pm.InputError, match="unknown pictures"):
        pm.evaluate(small("llava"), "playground/vqa", pictures="other")


def test_pearson():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert pearson(x, 3 - 2 * x) == pytest.approx(-1)
    assert pearson(x, torch.tensor([1.0, -1.0, -1.0, 1.0])) == pytest.approx(0)
    assert pearson(x, torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)
    assert pearson(x, torch.ones(4)) == 0


def test_a_click_goes_where_a_mask_is_deepest():
    square = torch.zeros(9, 12, dtype=torch.bool)
    square[2:7, 3:8] = True
    assert centre(square) == (5, 4)
    assert depths(square)[4].tolist() == [0, 0, 0, 1, 2, 3, 2, 1, 0, 0, 0, 0]
    square[3, 4] = False
    assert depths(square)[4, 5] == pytest.approx(2**0.5)  # as the crow flies
    assert depths(torch.ones(3, 5, dtype=torch.bool)).max() == 2  # beyond the picture there is nothing


def test_clicks_are_corrections(monkeypatch):
    """Each later click lies on the object where the answer missed it, or beside it where the answer added to it."""
    family, asked = small("sam"), []
    answer = family.segment
    monkeypatch.setattr(family, "segment", lambda *given, **more: asked.append((given, more)) or answer(*given, **more))
    pm.evaluate(family, "playground/segment", count=2)
    clicked = [(given[1], given[2], more["mask"]) for given, more in asked if "mask" in more]
    assert clicked
    truths = [mask for seed in range(2) for mask in torch.from_numpy(masks(crowded_scene(seed, "test")))]
    for points, labels, mask in clicked:
        (truth,) = [t for t in truths if centre(t) == points[0]]
        assert mask is not None and len(labels) == len(points)
        for (x, y), label in zip(points, labels, strict=True):
            assert bool(truth[y, x]) == bool(label)
