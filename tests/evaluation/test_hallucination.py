"""The task that finds hallucinations, and what is done against them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import islice

import pytest

import panmodal as pm
from panmodal.evaluation import evaluate
from panmodal.evaluation.coco_objects import CocoHallucinations
from panmodal.evaluation.hallucination import CHAIR, SceneHallucinations
from panmodal.evaluation.results import read_result
from panmodal.playground import SPLITS, caption, make_scene
from panmodal.playground.hallucinations import PROBES, probes
from panmodal.prompting.correction import Correction, PlaygroundCaptions
from tests.evaluation import layouts
from tests.families.small import small

COUNT = 7 * 24


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", PROBES)
def test_the_text_of_a_probe_tells_nothing(kind, split):
    answers, turned = defaultdict(Counter), Counter()
    for scene, text, so in islice(probes(kind, split), 120):
        answers[text][so] += 1
        turned[scene.seed] += 1 if so else -1
        assert scene.split == split
    if kind == "relation":  # asked both ways of the same scene
        assert set(turned.values()) == {0}
    else:
        assert all(counts[True] == counts[False] for counts in answers.values())


def test_what_a_probe_says_is_so():
    for scene, text, so in islice(probes("existence", "test"), 100):
        colour, shape = text.split()[3:5]
        assert bool(scene.fitting({"colour": colour, "shape": shape})) == so
    for scene, text, so in islice(probes("attribute", "test"), 100):
        words = text.rstrip("?").split()  # Is the red object a star? Is the star red?
        known = {"colour": words[2]} if words[3] == "object" else {"shape": words[2]}
        (thing,) = scene.fitting(known)
        assert (words[-1] in (thing.colour, thing.shape)) == so
    for scene, text, so in islice(probes("relation", "test"), 100):
        words = text.replace(" of", "").rstrip("?").split()  # Is the red star left the blue circle?
        (thing,), (other,) = (scene.fitting({"colour": c, "shape": s}) for c, s in (words[2:4], words[6:8]))
        ahead = {"left": thing.x < other.x, "right": thing.x > other.x, "above": thing.y < other.y}
        assert ahead.get(words[4], thing.y > other.y) == so


class Scripted:
    """Answers by what it is asked; `heard` are the options and the questions."""

    interleaved, name = False, "scripted"

    def __init__(self, answer):
        self.answer, self.heard = answer, []

    def reply_all(self, conversations, rows=16, **options):
        self.heard += [(said[-1].text, options) for said in conversations]
        return [pm.assistant(self.answer(said[-1])) for said in conversations]

    def reply(self, said, **options): ...

    def stream(self, said, **options): ...


def truths():
    """By question and picture what is so"""
    task = SceneHallucinations(COUNT)
    told = {}
    for one in task.examples(None, "test"):
        said = {True: "yes", False: "no"}.get(one.truth) if one.about["kind"] != CHAIR else None
        key = one.parts[1], pm.Image(one.parts[0].pixels).key
        told[key] = said or caption(make_scene(int(one.about["picture"]), "test"))
    return told


TRUTHS = truths()


def sees(asked):
    return TRUTHS[asked.text, pm.Image(asked.images[0].pixels).key]


def more(asked):
    """A thing more than there is, in descriptions"""
    return sees(asked) + (", a small pink cross in the centre" if asked.text.startswith("Describe") else "")


def test_who_sees_it_all():
    report = evaluate(Scripted(sees), "hallucination", count=COUNT)
    assert report.examples == COUNT and report.intervals.keys() == report.metrics.keys()
    assert {name for name, value in report.metrics.items() if value == 0} == {"chair_i", "chair_s"}
    assert {value for name, value in report.metrics.items() if "yes_share" in name} == {0.5}
    assert report.metrics["pope_f1"] == report.metrics["chair_recall"] == report.metrics["relation_accuracy"] == 1


def test_who_says_yes_to_everything():
    metrics = evaluate(Scripted(lambda asked: "Yes."), "hallucination", count=COUNT, pictures="none").metrics
    assert metrics["pope_adversarial_f1"] == pytest.approx(2 / 3) and metrics["chair_recall"] == 0
    for kind in ("pope_random", "pope_popular", "pope_adversarial", *PROBES):
        assert metrics[f"{kind}_accuracy"] == 0.5 and metrics[f"{kind}_yes_share"] == 1


@pytest.mark.parametrize("task", ["hallucination", "playground/pope", "playground/chair"])
def test_which_pictures_are_seen(task):
    def keys(pictures):
        seen = []
        evaluate(
            Scripted(lambda asked: seen.append([image.key for image in asked.images]) or "Yes."),
            task, count=24, pictures=pictures,
        )  # fmt: skip
        return seen

    own, swapped = keys("own"), keys("swapped")
    assert all(len(a) == len(b) == 1 and a != b for a, b in zip(own, swapped, strict=True))
    assert keys("none") == [[]] * 24


def test_what_is_said_of_pictures_is_corrected(tmp_path):
    """By a checker that sees: what is not there goes, and nothing else; yes and no are left as they are."""
    before = evaluate(Scripted(more), "hallucination", count=COUNT).metrics

    def looks(asked):
        thing = asked.text.removeprefix("Is there a ").removesuffix(" in the picture?")
        return "Yes, no doubt." if thing in TRUTHS["Describe the picture.", asked.images[0].key] else "no"

    checker = Scripted(looks)
    model, correction = Scripted(more), Correction(checker, PlaygroundCaptions())
    after = evaluate(model, "hallucination", count=COUNT, correction=correction, out=tmp_path).metrics
    assert before["chair_s"] > 0.9 and after["chair_i"] == after["chair_s"] == 0
    assert after["chair_recall"] == before["chair_recall"] == 1
    assert {k: v for k, v in after.items() if "chair" not in k} == {k: v for k, v in before.items() if "chair" not in k}
    assert all(text.startswith("Is there a ") for text, _ in checker.heard)
    made = read_result(tmp_path / "hallucination.json").provenance
    assert made["mitigation"] == {"correction": {"checker": "scripted", "writer": "PlaygroundCaptions"}}


def test_decoding_is_told(tmp_path):
    model = Scripted(sees)
    evaluate(model, "hallucination", count=14, decoding={"contrast": 1.0, "noise": 700}, out=tmp_path)
    assert {tuple(options.items()) for _, options in model.heard} == {
        (("max_tokens", 160), ("contrast", 1.0), ("noise", 700))
    }
    made = read_result(tmp_path / "hallucination.json").provenance
    assert made["mitigation"] == {"decoding": {"contrast": 1.0, "noise": 700}}
    with pytest.raises(pm.InputError, match="made with mitigation.decoding.contrast 1.0, and this would be with"):
        evaluate(model, "hallucination", count=14, decoding={"contrast": 2.0, "noise": 700}, out=tmp_path)
    with pytest.raises(pm.InputError, match="for what models that converse say at once"):
        evaluate(small("clip"), "playground/zero-shot", decoding={"contrast": 1.0})


def test_photographs(tmp_path):
    """POPE's questions and the picture that they are about; a dog is there, and by what people say a person."""
    layouts.pope(tmp_path)
    instances = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 18}],
        "categories": [{"id": 18, "name": "dog"}],
    }
    said = {"annotations": [{"image_id": 1, "caption": "Two children and their puppy."}]}
    files = {"instances_val2014.json": instances, "annotations/captions_val2014.json": said}
    layouts.write(tmp_path, files)
    tells = lambda asked: "A boy, a dog, and hot dogs on two benches." if "describe" in asked.text else "Yes"  # noqa: E731
    report = evaluate(Scripted(tells), "hallucination", data=tmp_path)
    assert report.examples == 7 and report.metrics["pope_f1"] == pytest.approx(2 / 3)
    assert [report.metrics[name] for name in ("chair_i", "chair_s", "chair_recall")] == [0.5, 1, 1]
    (tmp_path / "instances_val2014.json").write_text(json.dumps({**instances, "images": []}))
    with pytest.raises(pm.InputError, match="tells nothing of a.jpg, and of 0 others"):
        evaluate(Scripted(tells), "hallucination", data=tmp_path)


def test_names_of_things_in_photographs():
    named = CocoHallucinations().named
    told = "A man in skis and two women ride ponies past a stop sign; the knives lie on tables, a teddy bear."
    assert named(told) == Counter(
        {"person": 2, "skis": 1, "horse": 1, "stop sign": 1, "knife": 1, "dining table": 1, "teddy bear": 1}
    )
    assert not named("A carpet in a category of its own, bare.")
