"""Published data sets of masks, of charts, and of pictures and captions that find each other, in their layouts."""

from __future__ import annotations

import pytest
import torch

import panmodal as pm
from panmodal.data.masks import to_rle
from panmodal.evaluation import PUBLISHED, score
from panmodal.evaluation.results import read_result
from tests.evaluation import layouts
from tests.families.small import small


def test_chartqa(tmp_path):
    """14.5 is within 5 % of 14, 14.8 is not; words are compared without case."""
    data = layouts.chartqa(tmp_path / "data")
    layouts.write(tmp_path, {"said.jsonl": [
        {"question_id": "human/0", "text": "14.5"}, {"question_id": "human/1", "text": "red."},
        {"question_id": "augmented/0", "text": "60"},
    ]})  # fmt: skip
    report = score("chartqa", tmp_path / "said.jsonl", data)
    assert report.metrics == {"accuracy": pytest.approx(2 / 3), "human": 1, "augmented": 0}
    first, *_ = PUBLISHED["chartqa"].examples(data, "test")
    assert first.messages[0].images[0].pixels.size == (8, 8) and first.parts[1].startswith("How many?")
    assert [PUBLISHED["chartqa"].mark(first, said) for said in ("14.8", "14", "13.3", "13.2", "many")] == [
        0,
        1,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize(("task", "name"), [("flickr30k-retrieval", "flickr30k"), ("coco-retrieval", "coco")])
def test_pictures_and_captions_find_each_other(task, name, tmp_path, monkeypatch):
    """The first two pictures are taken for each other, the third is found; a caption of the first is found."""
    clip, data = small("clip"), layouts.karpathy(tmp_path, name)

    def embed(items):
        if isinstance(items[0], str):
            pairs = [(int(text.split()[1].strip(",")), text) for text in items]
            right = [n == 4 or text == "picture 1, caption 0" for n, text in pairs]
            return torch.stack(
                [torch.eye(5)[n] if so else 0.9 * torch.eye(5)[4 - n] for (n, _), so in zip(pairs, right, strict=True)]
            )
        return torch.eye(5)[[1, 3, 4]]

    monkeypatch.setattr(clip, "embed", embed)
    report = pm.evaluate(clip, task, data=data, out=tmp_path / "out")
    found = report.metrics
    assert report.examples == 3 and found["image_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert found["text_to_image_recall_at_1"] == pytest.approx(6 / 15) and found["text_to_image_recall_at_5"] == 1
    assert found["recall_at_1"] == pytest.approx((2 / 3 + 6 / 15) / 2)
    first, second, third = read_result(tmp_path / "out" / f"{task}.json").answers
    assert first.answer["image_to_text"] == 1 and second.answer["image_to_text"] > 5
    assert len(first.answer["text_to_image"]) == 5 and third.answer == {"image_to_text": 1, "text_to_image": [1] * 5}
    with pytest.raises(pm.InputError, match="asks for a Contrastive or BlipHybrid model"):
        pm.evaluate(small("llava"), task, data=data)


def test_masks_of_coco(tmp_path, monkeypatch):
    """Who answers a box by itself has the square right; of the bar, too, but for its lower half."""
    pytest.importorskip("pycocotools")
    sam, data = small("sam"), layouts.coco_instances(tmp_path)
    examples = PUBLISHED["coco-masks"].examples(data, "val2017")
    assert [(one.id, one.truth) for one in examples] == [("7", [2, 2, 4, 4]), ("8", [2, 0, 2, 8])]
    square, bar = torch.zeros(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    square[2:6, 2:6], bar[:4, 2:4] = True, True
    half = {**to_rle(bar), "score": 0.5}
    answers = {
        "7": {"point": {**to_rle(square), "score": 0.9}, "box": {**to_rle(square), "score": 0.9}},
        "8": {"point": half, "box": half},
    }
    metrics = PUBLISHED["coco-masks"].score(examples, answers).metrics
    assert metrics["point_mean_iou"] == metrics["box_mean_iou"] == pytest.approx(0.75)
    assert metrics["box_ap_50"] == 1 and metrics["box_ap_75"] == pytest.approx(0.505, abs=1e-3)
    report = pm.evaluate(sam, "coco-masks", data=data, out=tmp_path / "out")
    assert report.examples == 2 and 0 <= report.metrics["point_mean_iou"] <= 1
    (first, _) = read_result(tmp_path / "out" / "coco-masks.json").answers
    assert first.answer["box"]["size"] == [8, 8]
    monkeypatch.setattr(sam, "embed_image", lambda *_: pytest.fail("it is asked again"))
    (tmp_path / "out" / "coco-masks.json").unlink()
    assert pm.evaluate(sam, "coco-masks", data=data, out=tmp_path / "out") == report


def test_davis(tmp_path, command):
    """The second object is off by half of its width in one of the two frames that count."""
    data = layouts.davis(tmp_path / "data")
    layouts.davis(tmp_path / "said", moved=5)
    masks = tmp_path / "said" / "Annotations" / "480p"
    metrics = score("davis", masks, data).metrics
    assert metrics["j"] == pytest.approx((1 + (1 + 1 / 3) / 2) / 2)
    assert metrics["j_and_f"] == pytest.approx((metrics["j"] + metrics["f"]) / 2) and 0.5 < metrics["f"] < 1
    assert score("davis", data / "Annotations" / "480p", data).metrics == {"j": 1, "f": 1, "j_and_f": 1}
    assert command("score", "davis", masks, "--data", data).code == 0
    with pytest.raises(pm.InputError, match="2 of 2 questions have no answer, the first is 'bear/1'"):
        score("davis", tmp_path, data)
    (masks / "bear" / "00001.png").unlink()
    with pytest.raises(pm.InputError, match=r"00001.png is no mask that can be read; there is a PNG for each frame"):
        score("davis", masks, data)
    with pytest.raises(pm.InputError, match="davis is of answers that are there already; `panmodal score davis"):
        pm.evaluate(small("sam"), "davis", data=data)
