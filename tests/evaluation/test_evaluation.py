"""Metrics against values worked out by hand, and what a report holds."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
import torch

import panmodal as pm
import panmodal.evaluation.scenes
from panmodal.data.nlvr import LOOK
from panmodal.evaluation import TASKS
from panmodal.evaluation.metrics import (
    accuracy,
    chair_scores,
    exact_match,
    normalised,
    pearson,
    recall_at,
    says_yes,
    yes_no_scores,
)
from panmodal.evaluation.segmentation import centre, depths
from panmodal.evaluation.yes_no import verdict
from panmodal.families import BlipHybrid
from panmodal.playground import KINDS, caption, crowded_scene, make_scene, masks, render
from tests.data.test_readers import write_nlvr
from tests.families.small import small

TRUE = {render(scene).tobytes(): caption(scene) for scene in (make_scene(seed, "test") for seed in range(100))}


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


MODELS = {
    "playground/vqa": "llava",
    "playground/extremes": "llava",
    "playground/multi-step": "llava",
    "playground/pope": "llava",
    "playground/chair": "llava",
    "playground/new-words": "flamingo",
    "playground/domain-mix": "flamingo",
    "playground/match": "blip",
    "playground/caption": "blip",
    "playground/segment": "sam",
}


@pytest.mark.parametrize("task", [task for task in TASKS if task.startswith("playground/")])
def test_a_report(task):
    model = small(MODELS.get(task, "imagebind" if "audio" in task else "clip"), std=0.3)
    few = {
        "playground/segment": 4,
        "playground/domain-mix": 16,
        "playground/chair": 20,
        "playground/extremes": 20,
        "playground/multi-step": 20,
    }
    count = few.get(task, 100)
    seen: list[tuple[int, int]] = []
    report = pm.evaluate(model, task, split="held-out", count=count, progress=lambda done, of: seen.append((done, of)))
    told = report.to_json()
    assert told["task"] == task and told["split"] == "held-out" and told["examples"] == count
    beyond = ("iou_correlation", "shown")
    assert all(0 <= v <= 1 or k in beyond for k, v in told["metrics"].items() if k != "by_kind")
    assert seen[-1] == (count, count)
    assert pm.evaluate(model, task, split="held-out", count=count).to_json() == told


class Knowing(BlipHybrid):
    """Embeds at random, and knows from the picture's bytes which captions are a scene's."""

    def match(self, image, texts, rows=64):
        return [1.0 if text == TRUE[image.pixels.tobytes()] else 0.0 for text in texts]

    def caption_all(self, images, prompt="", rows=32):
        return [TRUE[image.pixels.tobytes()] for image in images]


def test_what_is_ranked_again_is_found_if_it_was_among_the_first():
    """The best matcher there can be gets the pictures whose captions the contrast has among its first 16."""
    model = Knowing.fresh(small("blip").config, small("blip").checkpoint.files)
    metrics = pm.evaluate(model, "playground/retrieval", count=100).metrics
    assert metrics["recall_at_1"] < 0.1
    assert metrics["image_to_text_recall_at_5"] < metrics["reranked_image_to_text_recall_at_1"] < 0.6
    assert "reranked_recall_at_1" not in pm.evaluate(small("clip"), "playground/retrieval", count=100).metrics


def test_twins_differ_in_one_attribute(monkeypatch):
    clip, told = small("clip"), []

    def embed(items):
        told.append(items)
        return torch.randn(len(items), 4)

    monkeypatch.setattr(clip, "embed", embed)
    assert pm.evaluate(clip, "playground/retrieval-pairs", split="held-out", count=100).examples == 100
    pictures, captions = told
    assert len(pictures) == len(captions) == 100
    for first, second in zip(captions[:50], captions[50:], strict=True):
        assert sum((Counter(re.findall(r"\w+", first)) - Counter(re.findall(r"\w+", second))).values()) == 1  # a word


def test_the_best_matcher_and_captioner_are_always_right():
    model = Knowing.fresh(small("blip").config, small("blip").checkpoint.files)
    matched = pm.evaluate(model, "playground/match", count=100).metrics
    kinds = {"fits", "another_colour", "another_shape", "another_size", "another_digit"}
    assert matched == {"accuracy": 1, "by_kind": dict.fromkeys(kinds, 1)}
    captioned = pm.evaluate(model, "playground/caption", count=40).metrics
    assert captioned == {"accuracy": 1, "by_kind": dict.fromkeys(("objects_1", "objects_2", "objects_3"), 1)}


def test_every_kind_is_asked_equally_often():
    report = pm.evaluate(small("llava"), "playground/vqa", count=len(KINDS))
    assert set(report.metrics["by_kind"]) == set(KINDS)
    assert report.metrics["question_only"] == 1.0  # of a single question a kind


class Reader:
    """Stands for a perfect pupil: of the examples it takes the words of those that look like what is asked about."""

    def __init__(self, model):
        self.looks = {}
        model.reply_all = self.reply_all

    def reply_all(self, conversations, rows, max_tokens):
        return [pm.assistant(f"this is a {' '.join(self.answer(said))}.") for said in conversations]

    def answer(self, said):
        known = [(self.look(a), b.text.strip(".").split()[-2:]) for a, b in zip(said[:-1:2], said[1::2], strict=True)]
        asked = self.look(said[-1])
        return [next((words[i] for seen, words in known if seen[i] == asked[i]), "?") for i in (0, 1)]

    def look(self, message):
        if not message.images:
            return "?", "?"
        return self.looks[message.images[0].key]


@pytest.fixture
def pupil(monkeypatch):
    """A model that reads and sees all there is, the colours and shapes noted as they are painted."""
    model = small("flamingo")
    reader = Reader(model)

    def noting(scene):
        picture = render(scene)
        reader.looks[pm.Image(picture).key] = (scene.objects[0].colour, scene.objects[0].shape)
        return picture

    monkeypatch.setattr(panmodal.evaluation.scenes, "render", noting)
    return model


@pytest.mark.parametrize("split", ["test", "held-out"])
def test_new_words_can_be_known_from_four_examples_and_only_from_them(pupil, split):
    score = lambda **options: pm.evaluate(pupil, "playground/new-words", split=split, count=160, **options).metrics  # noqa: E731
    assert score(shots=4)["accuracy"] == score(shots=8)["accuracy"] == score(shots=12)["accuracy"] == 1
    few = [score(shots=k)["accuracy"] for k in (0, 1, 2, 3)]
    assert few[0] == few[1] == 0 < few[2] < few[3] < 1
    for shots in (4, 8):
        swapped, unseen = (score(shots=shots, pictures=p) for p in ("swapped", "none"))
        assert swapped["accuracy"] < swapped["text_only"] + 0.05
        assert unseen["accuracy"] < 0.2
    assert score(shots=4)["text_only"] == pytest.approx(1 / 12)


def test_what_cannot_be_run():
    with pytest.raises(pm.InputError, match="did you mean 'playground/vqa'"):
        pm.evaluate(small("llava"), "playground/vq")
    with pytest.raises(pm.InputError, match="asks for a Contrastive model, and"):
        pm.evaluate(small("llava"), "playground/zero-shot")
    with pytest.raises(pm.InputError, match="asks for a Conversational model, and"):
        pm.evaluate(small("clip"), "playground/vqa")
    with pytest.raises(pm.InputError, match="playground/vqa has no split 'dev'"):
        pm.evaluate(small("llava"), "playground/vqa", split="dev")
    with pytest.raises(pm.InputError, match="nlvr needs its data's folder"):
        pm.evaluate(small("llava"), "nlvr")
    with pytest.raises(pm.InputError, match="playground/vqa makes its own data"):
        pm.evaluate(small("llava"), "playground/vqa", data=".")
    with pytest.raises(pm.InputError, match="unknown pictures"):
        pm.evaluate(small("llava"), "playground/vqa", pictures="other")
    with pytest.raises(pm.InputError, match="playground/retrieval is asked about its own pictures alone"):
        pm.evaluate(small("clip"), "playground/retrieval", pictures="swapped")
    with pytest.raises(pm.InputError, match="shots is -1"):
        pm.evaluate(small("flamingo"), "playground/new-words", shots=-1)


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


def test_pope_reads_the_first_sentence():
    assert says_yes("Yes, there is. It is not red.") and says_yes("There is a known star")
    assert not says_yes("No, there is none.") and not says_yes("There is not") and not says_yes("no")


def test_scores_of_yes_and_no():
    """Three of four there are found, and one of six is seen that is not there."""
    truth = [True] * 4 + [False] * 6
    said = [True, True, True, False, True, False, False, False, False, False]
    assert yes_no_scores(said, truth) == pytest.approx(
        {"accuracy": 0.8, "precision": 0.75, "recall": 0.75, "f1": 0.75, "yes_share": 0.4}
    )
    assert yes_no_scores([True] * 4, [True, False] * 2)["f1"] == pytest.approx(2 / 3)
    assert yes_no_scores([False] * 2, [True, False]) == {
        "accuracy": 0.5, "precision": 0, "recall": 0, "f1": 0, "yes_share": 0
    }  # fmt: skip


def test_pope_of_published_answers(fixtures):
    """LLaVA-1.5-13B's released answers have the published scores."""
    folder = fixtures / "pope"
    lines = lambda name: [json.loads(line) for line in (folder / name).read_text().splitlines()]  # noqa: E731
    category = {q["question_id"]: q["category"] for q in lines("questions.jsonl")}
    said: dict[str, list[str]] = {}
    for answer in lines("llava-v1.5-13b_answers.jsonl"):
        said.setdefault(category[answer["question_id"]], []).append(answer["text"])
    expected = {"random": (0.8714, 0.4168), "popular": (0.8625, 0.4137), "adversarial": (0.8446, 0.4330)}
    for kind, (f1, share) in expected.items():
        truth = [line["label"] == "yes" for line in lines(f"coco_pope_{kind}.json")]
        scores = yes_no_scores([says_yes(text) for text in said[kind]], truth)
        assert (scores["f1"], scores["yes_share"]) == pytest.approx((f1, share), abs=5e-5)


def test_chair():
    """Of five things named two are not there, in one of three captions; of five that are there three are named."""
    named = [Counter(a=1, b=2), Counter(c=1, d=1), Counter()]
    there = [{"a", "e"}, {"c", "d"}, {"f"}]
    assert chair_scores(named, there) == pytest.approx({"chair_i": 2 / 5, "chair_s": 1 / 3, "recall": 3 / 5})
    assert chair_scores([Counter()], [{"a"}]) == {"chair_i": 0, "chair_s": 0, "recall": 0}


def answering(monkeypatch, answer):
    model = small("llava")
    monkeypatch.setattr(
        model,
        "reply_all",
        lambda said, rows, max_tokens: [pm.assistant(answer(conversation[-1])) for conversation in said],
    )
    return model


def test_who_says_yes_to_everything(monkeypatch):
    metrics = pm.evaluate(answering(monkeypatch, lambda asked: "Yes."), "playground/pope", count=240).metrics
    assert metrics["f1"] == pytest.approx(2 / 3) and metrics["yes_share"] == metrics["recall"] == 1
    assert metrics["by_kind"].keys() == {"random", "popular", "adversarial"}
    seen = {pm.Image(render(s)).key: s for s in (make_scene(seed, "test") for seed in range(40))}

    def sees(asked):
        colour, shape = asked.text.split()[3:5]
        return "yes" if seen[asked.images[0].key].fitting({"colour": colour, "shape": shape}) else "no"

    metrics = pm.evaluate(answering(monkeypatch, sees), "playground/pope", count=240).metrics
    assert metrics["f1"] == metrics["accuracy"] == 1 and metrics["yes_share"] == 0.5


def test_who_names_one_thing_too_many(monkeypatch):
    true = lambda asked: TRUE[asked.images[0].pixels.tobytes()]  # noqa: E731
    metrics = pm.evaluate(answering(monkeypatch, true), "playground/chair", count=70).metrics
    assert metrics == {"chair_i": 0, "chair_s": 0, "recall": 1, "well_formed": 1}
    more = lambda asked: true(asked) + ", a small pink cross in the centre"  # noqa: E731
    metrics = pm.evaluate(answering(monkeypatch, more), "playground/chair", count=70).metrics
    pink = sum(bool(make_scene(seed, "test").fitting({"colour": "pink", "shape": "cross"})) for seed in range(70))
    assert metrics["chair_s"] == pytest.approx(1 - pink / 70) and 0.1 < metrics["chair_i"] < 0.5
    assert metrics["well_formed"] == 1
    broken = lambda asked: true(asked) + ", at the bottom right"  # noqa: E731
    metrics = pm.evaluate(answering(monkeypatch, broken), "playground/chair", count=70).metrics
    assert metrics == {"chair_i": 0, "chair_s": 0, "recall": 1, "well_formed": 0}


def test_nlvr(tmp_path, monkeypatch):
    """Who says that all is true is right on the sentence that is, and on half of the other's pictures if he says no
    there."""
    write_nlvr(tmp_path, "dev", with_directory=True)
    report = pm.evaluate(answering(monkeypatch, lambda asked: "Yes, true."), "nlvr", data=tmp_path, split="dev")
    assert report.examples == 12
    assert report.metrics == {"accuracy": 0.5, "consistency": 0.5, "majority": 0.5, "unparsed": 0}
    counted, heard = iter(range(12)), []

    def falters(asked):
        heard.append(asked)
        return "boxes" if asked.text == LOOK else "maybe" if next(counted) % 2 else "False."

    some = answering(monkeypatch, falters)
    assert pm.evaluate(some, "nlvr", data=tmp_path, split="dev").metrics == {
        "accuracy": 3 / 12, "consistency": 0, "majority": 0.5, "unparsed": 6
    }  # fmt: skip
    assert [len(asked.images) for asked in heard] == [3] * 12 + [0] * 12  # the pictures are asked about first
    with pytest.raises(pm.InputError, match="has neither test/"):
        pm.evaluate(some, "nlvr", data=tmp_path)


def test_verdicts():
    assert verdict("True.") and verdict("yes, it is not false") and verdict("The answer is true")
    assert verdict("FALSE") is False and verdict("No") is False and verdict("untrue") is None and verdict("") is None
