"""Published benchmarks: tiny data sets in the real layouts, and released answers whose scores are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import panmodal as pm
from panmodal.evaluation import PUBLISHED, evaluate, score
from tests.data.test_readers import write_nlvr
from tests.evaluation import layouts
from tests.evaluation.layouts import lines, table, write
from tests.families.small import small


def reach(task, folder, answers, name="answers.jsonl", **options):
    """The metrics of answers that are written to a file."""
    write(folder, {f"said/{name}": answers})
    return score(task, folder / "said" / name, folder, **options)


def llava(said):
    """Answers in LLaVA's form, by id"""
    return [{"question_id": key, "prompt": "", "text": text, "answer_id": "x"} for key, text in said.items()]


def test_pope(tmp_path):
    layouts.pope(tmp_path)
    said = {1: "Yes, there is.", 2: "No", 10000001: "no", 10000002: "no", 20000001: "yes", 20000002: "yes"}
    report = reach("pope", tmp_path, llava(said))
    assert report.examples == 6 and report.split == "all" and report.metrics["accuracy"] == pytest.approx(2 / 3)
    f1 = [report.metrics[f"{kind}_f1"] for kind in ("adversarial", "random", "popular")]
    assert f1 == pytest.approx([1, 0, 2 / 3]) and report.metrics["f1"] == pytest.approx(5 / 9)
    assert reach("pope", tmp_path, llava(said), split="popular").metrics["accuracy"] == 0.5
    asked = [{"question": f"Is there a {thing} in the image?", "answer": "yes"} for thing in ("dog", "cat")]
    assert reach("pope", tmp_path, lines(*asked), "random.json", split="random").metrics["recall"] == 1  # the authors'
    with pytest.raises(pm.InputError, match="one kind, in their order"):
        reach("pope", tmp_path, lines(*asked), "random.json")


def test_pope_of_released_answers(fixtures):
    folder = fixtures / "pope"
    report = score("pope", folder / "llava-v1.5-13b_answers.jsonl", folder)
    expected = {"random": (0.8714, 0.4168), "popular": (0.8625, 0.4137), "adversarial": (0.8446, 0.4330)}
    for kind, (f1, share) in expected.items():
        assert report.metrics[f"{kind}_f1"] == pytest.approx(f1, abs=5e-5)
        assert report.metrics[f"{kind}_yes_share"] == pytest.approx(share, abs=5e-5)
    assert report.metrics["f1"] == pytest.approx(0.859, abs=5e-4)
    low, high = report.intervals["f1"]
    assert 0.84 < low < report.metrics["f1"] < high < 0.88


def test_textvqa(tmp_path):
    layouts.textvqa(tmp_path)
    prompts = [
        f"What brand {i}?\nReference OCR token: x\nAnswer the question using a single word or phrase." for i in (1, 0)
    ]
    said = [
        {"question_id": "00ff", "prompt": p, "text": text} for p, text in zip(prompts, ("Dakota", "It's"), strict=True)
    ]
    assert reach("textvqa", tmp_path, said).metrics["accuracy"] == pytest.approx((1 + 0.3) / 2)
    official = [{"question_id": 34602, "answer": "dakota"}, {"question_id": 34603, "answer": "the dakota!"}]
    assert reach("textvqa", tmp_path, official, "official.json").metrics["accuracy"] == 1


def test_textvqa_of_released_answers(fixtures):
    folder = fixtures / "textvqa"
    report = score("textvqa", folder / "llava-v1.5-13b_answers.jsonl", folder)
    assert report.examples == 5000 and report.metrics["accuracy"] == pytest.approx(0.6125, abs=5e-5)  # told as 61.3


def test_mmmu_of_released_answers(fixtures):
    """Parsed answers have the published scores; of the raw ones two tell no option, for which a coin was tossed."""
    folder = fixtures / "mmmu"
    report = score("mmmu", folder / "llava1.5_13b" / "total_val_output.json", folder)
    groups = {
        "accuracy": 0.367, "art_and_design": 0.525, "business": 0.227, "science": 0.293, "health_and_medicine": 0.387,
        "humanities_and_social_science": 0.55, "tech_and_engineering": 0.31,
    }  # fmt: skip
    assert {name: round(report.metrics[name], 3) for name in groups} == groups and report.unparsed == 0
    raw = score("mmmu", folder / "llava1.5_13b", folder)
    assert raw.unparsed == 2 and raw.metrics["accuracy"] == 329 / 900


def test_mme(tmp_path):
    data = layouts.mme(tmp_path / "data/eval_tool/Your_Results").parents[1]
    folder = layouts.mme(tmp_path / "mine", results=True)
    report = score("mme", folder, data)
    assert report.metrics == {"perception": 100, "cognition": 200, "existence": 100, "code_reasoning": 200}
    assert report.examples == 6 and report.unparsed == 1 and report.intervals["code_reasoning"] == (200, 200)
    said = [
        {
            "question_id": f"{category}/{name}{i // 2}.png",
            "prompt": f"Is it {i}?\nAnswer the question using a single word or phrase.",
            "text": text,
        }
        for category, name, texts in (
            ("existence", "e", ("Yes", "No", "No.", "maybe")),
            ("code_reasoning", "c", ("yes", "no")),
        )
        for i, text in enumerate(texts)
    ]
    write(tmp_path, {"llava.jsonl": said})
    assert score("mme", tmp_path / "llava.jsonl", data) == report
    write(tmp_path, {"one.jsonl": said[:-1]})
    with pytest.raises(pm.InputError, match="1 of 6 questions have no answer, the first is 'code_reasoning/c0/Is it 1"):
        score("mme", tmp_path / "one.jsonl", data)
    write(tmp_path, {"twice.jsonl": [*said, said[0]]})
    with pytest.raises(
        pm.InputError, match=r"answers 1 questions that are not in the split, the first is 'existence/e0/Is it 0\? #2"
    ):
        score("mme", tmp_path / "twice.jsonl", data)


def test_mme_as_its_pictures_are_released(tmp_path):
    asked = "Is it art? Please answer yes or no.\tYes\nIs it red? Please answer yes or no.\tNo\n"
    write(tmp_path / "MME_Benchmark_release_version", {
        "artwork/questions_answers_YN/100.txt": asked, "artwork/images/100.jpg": layouts.picture(),
        "OCR/0001.txt": asked, "OCR/0001.png": layouts.picture(),
    })  # fmt: skip
    examples = PUBLISHED["mme"].examples(tmp_path, "test")
    assert [e.truth for e in examples] == [True, False] * 2
    assert all(e.messages[0].images[0].pixels.size == (8, 8) for e in examples)
    assert examples[0].messages[0].text.startswith("Is it art? Please answer yes or no.\nAnswer")


@pytest.mark.parametrize(("task", "prefix"), [("vqav2", "v2_"), ("ok-vqa", "")])
def test_vqa(task, prefix, tmp_path):
    layouts.vqa(tmp_path, prefix)
    metrics = reach(
        task, tmp_path, [{"question_id": 9000, "answer": "two"}, {"question_id": 9001, "answer": "Dog"}], "a.json"
    ).metrics
    assert metrics["accuracy"] == pytest.approx((1 + 1) / 2)
    metrics = reach(task, tmp_path, llava({9000: "2", 9001: "cat."})).metrics
    assert metrics["accuracy"] == pytest.approx(
        (0 + (8 * 2 / 3 + 2 / 3) / 10) / 2
    )  # all say "two", so nothing is cleaned
    assert (set(metrics) == {"accuracy", "number", "other"}) == (task == "vqav2")
    (first, _) = PUBLISHED[task].examples(tmp_path, "val2014")
    assert first.messages[0].text.startswith("What 0?\n") and first.messages[0].images[0].pixels.size == (8, 8)


def test_scienceqa(tmp_path):
    layouts.scienceqa(tmp_path)
    report = reach("scienceqa", tmp_path, llava({"4": "B. south", "7": "The answer is B."}))
    assert report.metrics == {
        "accuracy": 0.5,
        "soc": 1,
        "g1_6": 1,
        "txt": 1,
        "img": 1,
        "image_accuracy": 1,
        "nat": 0,
        "g7_12": 0,
        "no": 0,
    }
    assert reach("scienceqa", tmp_path, llava({"4": "E", "7": "north"})).unparsed == 2
    asked = PUBLISHED["scienceqa"].examples(tmp_path, "test")[0].messages[0]
    assert asked.text.splitlines()[:4] == ["A map.", "Which?", "A. north", "B. south"] and asked.images[0].pixels


def test_mmbench(tmp_path):
    layouts.mmbench(tmp_path)
    report = reach("mmbench", tmp_path, llava({8: "A", 9: "B. down", 1000008: "B", 1000009: "I do not know"}))
    assert report.metrics["accuracy"] == 0.5 and report.metrics["vanilla_accuracy"] == 1 and report.unparsed == 1
    assert report.metrics["object_localization"] == report.metrics["finegrained_perception"] == 0.5
    official = table("index prediction", (8, "A"), (9, "up"), (1000008, "(B)"), (1000009, "A"))
    assert reach("mmbench", tmp_path, official, "a.tsv").metrics["vanilla_accuracy"] == 0.5
    asked = PUBLISHED["mmbench"].examples(tmp_path, "dev")[0].messages[0]
    assert asked.images[0].pixels.size == (8, 8) and "C." not in asked.text


def test_seed_bench(tmp_path):
    layouts.seed(tmp_path)
    metrics = reach("seed-bench", tmp_path, llava({101: "B", "v5_3": "D. four"})).metrics
    assert metrics == {
        "accuracy": 0.5,
        "image_accuracy": 1,
        "instances_counting": 1,
        "video_accuracy": 0,
        "action_recognition": 0,
    }
    assert (
        reach("seed-bench", tmp_path, [{"question_id": "101", "prediction": "B"}], split="image").metrics["accuracy"]
        == 1
    )
    assert PUBLISHED["seed-bench"].examples(tmp_path, "image")[0].messages[0].images[0].pixels


def test_mmmu(tmp_path):
    layouts.mmmu(tmp_path)
    first, second = PUBLISHED["mmmu"].examples(tmp_path, "validation")
    assert [type(part).__name__ for part in first.messages[0].parts] == ["Text", "Image", "Text"]
    assert first.messages[0].images[0].pixels.size == (8, 8) and second.truth == ["2.5", "two"]
    metrics = reach(
        "mmmu", tmp_path, llava({"validation_Math_1": "It is (B), not A", "validation_Math_2": "So x = 2.50"})
    ).metrics
    assert metrics == {"accuracy": 1, "science": 1, "math": 1}


def test_nlvr(tmp_path):
    write_nlvr(tmp_path, "dev", with_directory=True)
    names = [(f"dev-{sentence}-{k}.png", "true") for sentence in ("10-0", "7-2") for k in range(6)]
    report = reach("nlvr", tmp_path, "\n".join(",".join(pair) for pair in names), "mine.csv", split="dev")
    assert report.metrics == {"accuracy": 0.5, "consistency": 0.5, "majority": 0.5, "unparsed": 0}


def test_what_answers_lack(tmp_path):
    layouts.scienceqa(tmp_path)
    with pytest.raises(pm.InputError, match="1 of 2 questions have no answer, the first is '7'; --partial"):
        reach("scienceqa", tmp_path, llava({"4": "B"}))
    report = reach("scienceqa", tmp_path, llava({"4": "B"}), partial=True)
    assert report.examples == 1 and report.metrics["accuracy"] == 1
    with pytest.raises(
        pm.InputError, match="answers 1 questions that are not in the split, the first is '9'; the split has 2"
    ):
        reach("scienceqa", tmp_path, llava({"4": "B", "7": "A", "9": "A"}))
    with pytest.raises(pm.InputError, match="answers 1 questions more than once, the first is '4'"):
        reach("scienceqa", tmp_path, [*llava({"4": "B", "7": "A"}), *llava({"4": "A"})])
    with pytest.raises(pm.InputError, match="answer 2: an answer needs 'question_id' and 'text' or"):
        reach("scienceqa", tmp_path, [*llava({"4": "B"}), {"id": "7", "said": "A"}])
    with pytest.raises(pm.InputError, match="line 2: not JSON"):
        reach("scienceqa", tmp_path, lines(*llava({"4": "B"})) + "{oh")
    with pytest.raises(pm.InputError, match="scienceqa has no split 'tets'; did you mean 'test'"):
        reach("scienceqa", tmp_path, llava({"4": "B"}), split="tets")
    with pytest.raises(pm.InputError, match="has no problems.json; --data is the data set's folder"):
        score("scienceqa", tmp_path / "said/answers.jsonl", tmp_path / "said")
    with pytest.raises(pm.InputError, match="unknown benchmark 'sciencqa'; did you mean 'scienceqa'"):
        reach("sciencqa", tmp_path, [])


def test_a_model_is_asked_what_answers_are_scored_by(tmp_path, monkeypatch):
    """The same class serves both: a model that says what a file has reaches the same."""
    layouts.scienceqa(tmp_path)
    model, said = small("llava"), {"Which?": "A"}
    monkeypatch.setattr(
        model, "reply_all", lambda asked, rows, max_tokens: [pm.assistant(said["Which?"]) for _ in asked]
    )
    report = evaluate(model, "scienceqa", data=tmp_path)
    scored = reach("scienceqa", tmp_path, llava({"4": "A", "7": "A"}))
    assert (report.metrics, report.intervals) == (scored.metrics, scored.intervals)
    assert report.to_json().keys() == {"model", *scored.to_json()}
    assert evaluate(model, "scienceqa", data=tmp_path, count=1).metrics["accuracy"] == 0


def test_the_command(command, tmp_path):
    layouts.scienceqa(tmp_path)
    answers = write(tmp_path, {"a.jsonl": llava({"4": "B", "7": "A"})}) / "a.jsonl"
    told = json.loads(command("score", "scienceqa", answers, "--data", tmp_path, "--json").out)
    assert told["task"] == "scienceqa" and told["split"] == "test" and told["examples"] == 2 and told["unparsed"] == 0
    assert told["metrics"]["accuracy"] == 1 and told["intervals"].keys() == told["metrics"].keys()
    assert told["intervals"]["accuracy"] == [1, 1]
    assert (
        "accuracy                         1.0000  [1.0000, 1.0000]"
        in command("score", "scienceqa", answers, "--data", tmp_path).out
    )
    result = command("score", "scienceqa", Path("none.jsonl"), "--data", tmp_path)
    assert result.code == 1 and result.err == "panmodal: there is no file none.jsonl\n"


def test_gqa(tmp_path):
    asked = {
        "question": "What is red?",
        "answer": "dog",
        "imageId": "n1",
        "types": {"structural": "query"},
        "isBalanced": True,
    }
    questions = {"201": asked, "202": {**asked, "answer": "yes", "types": {"structural": "verify"}}}
    write(tmp_path, {"questions/testdev_balanced_questions.json": questions, "images/n1.jpg": layouts.picture()})
    metrics = reach(
        "gqa",
        tmp_path,
        [{"questionId": "201", "prediction": "Dog."}, {"questionId": "202", "prediction": "no"}],
        "a.json",
    ).metrics
    assert metrics == {"accuracy": 0.5, "query": 1, "verify": 0}
    assert PUBLISHED["gqa"].examples(tmp_path, "testdev_balanced")[0].messages[0].images[0].pixels


def test_docvqa(tmp_path):
    record = {
        "questionId": 337,
        "question": "Which?",
        "image": "documents/x_1.png",
        "docId": 1,
        "answers": ["Hello World", "hello"],
    }
    write(
        tmp_path,
        {"val_v1.0_withQT.json": {"dataset_name": "docvqa", "data": [record]}, "documents/x_1.png": layouts.picture()},
    )
    metrics = reach("docvqa", tmp_path, [{"questionId": 337, "answer": "hella"}], "a.json").metrics
    assert metrics == {"anls": pytest.approx(0.8)}
    assert PUBLISHED["docvqa"].examples(tmp_path, "val")[0].messages[0].images[0].pixels


def test_hallusionbench(tmp_path):
    layouts.hallusion(tmp_path)
    records = json.loads((tmp_path / "HallusionBench.json").read_text())
    said = ["I cannot tell", "Yes", "It is unclear", "No, it is not.", "yes"]
    answers = [{**record, "model_prediction": text} for record, text in zip(records, said, strict=True)]
    report = reach("hallusionbench", tmp_path, answers, "result.json")
    assert (
        report.metrics == {"accuracy": 0.8, "question_accuracy": 0.5, "figure_accuracy": 0.5} and report.unparsed == 2
    )
    first, second, *_ = PUBLISHED["hallusionbench"].examples(tmp_path, "test")
    assert not first.messages[0].images and second.messages[0].images[0].pixels


def test_mathvista(tmp_path):
    record = {
        "image": "images/1.jpg",
        "unit": None,
        "metadata": {"task": "figure question answering"},
        "query": "Hint: x\nQuestion: y",
    }
    problems = {
        "1": {
            **record,
            "question": "How long?",
            "choices": ["3 cm", "4 cm"],
            "answer": "4 cm",
            "question_type": "multi_choice",
            "answer_type": "text",
            "precision": None,
        },
        "2": {
            **record,
            "question": "How many?",
            "choices": None,
            "answer": "7",
            "question_type": "free_form",
            "answer_type": "integer",
            "precision": 1.0,
        },
    }
    write(tmp_path, {"testmini.json": problems, "images/1.jpg": layouts.picture()})
    official = {
        key: {**one, "pid": key, "response": text}
        for (key, one), text in zip(problems.items(), ("(B) 4 cm", "7 or 8"), strict=True)
    }
    report = reach("mathvista", tmp_path, official, "output.json")
    assert report.metrics == {"accuracy": 0.5, "figure_question_answering": 0.5} and report.unparsed == 1
    assert PUBLISHED["mathvista"].examples(tmp_path, "testmini")[0].messages[0].images[0].pixels


@pytest.mark.parametrize(("name", "authors"), [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")])
def test_refcoco(name, authors, tmp_path):
    layouts.refcoco(tmp_path, name, authors)
    report = reach(name, tmp_path, llava({70: "[0.10, 0.10, 0.60, 0.60]", 71: "It is at (20, 10), (60, 60)."}))
    assert report.metrics == {"accuracy": 0.5, "mean_iou": pytest.approx((1 + 0.4) / 2)} and report.unparsed == 0
    assert reach(name, tmp_path, llava({70: "there", 71: "[20, 10, 120, 60]"})).unparsed == 1
    (example, _) = PUBLISHED[name].examples(tmp_path / name, "val")
    assert example.messages[0].text.endswith("describes: left dog")


def test_a_pickle_that_names_code_is_not_read(tmp_path):
    layouts.refcoco(tmp_path)
    (tmp_path / "refcoco/refs(unc).p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(pm.InputError, match=r"names no os\.system"):
        PUBLISHED["refcoco"].examples(tmp_path, "val")


def test_imagenet(tmp_path):
    write(
        tmp_path,
        {
            f"val/{kind}/{kind}_{i}.JPEG": layouts.picture(90 * i)
            for kind in ("n01440764", "n01443537")
            for i in range(2)
        },
    )
    with pytest.raises(pm.InputError, match="n01440764 has no name; put imagenet_class_index.json"):
        PUBLISHED["imagenet"].examples(tmp_path, "val")
    write(tmp_path, {"imagenet_class_index.json": {"0": ["n01440764", "tench"], "1": ["n01443537", "sea_bass"]}})
    report = evaluate(small("clip"), "imagenet", data=tmp_path)
    assert (
        report.examples == 4
        and report.metrics["top_5_accuracy"] == 1
        and report.metrics["accuracy"] in (0.25, 0.5, 0.75)
    )
    said = {f"{kind}/{kind}_{i}": "tench\nsea bass" for kind in ("n01440764", "n01443537") for i in range(2)}
    assert reach("imagenet", tmp_path, llava(said)).metrics == {"accuracy": 0.5, "top_5_accuracy": 1}


def test_esc50(tmp_path):
    rows = "filename,fold,target,category,esc10,src_file,take\n1-A.wav,1,0,dog,True,1,A\n2-A.wav,2,1,door_wood_knock,False,2,A\n"
    sound = pm.Audio(__import__("numpy").zeros(16000, "float32"), 16000)._file()[1]
    write(tmp_path, {"meta/esc50.csv": rows, "audio/1-A.wav": sound, "audio/2-A.wav": sound})
    assert reach("esc50", tmp_path, llava({"1-A.wav": "dog", "2-A.wav": "dog"})).metrics["accuracy"] == 0.5
    assert evaluate(small("imagebind"), "esc50", data=tmp_path, split="1").examples == 1
    assert [one.id for one in PUBLISHED["esc50"].examples(tmp_path, "esc10")] == ["1-A.wav"]


def test_omniglot(tmp_path):
    """Two runs of three characters, of which each test picture is its class's own drawing."""
    order = {1: 2, 2: 3, 3: 1}
    for run in ("run01", "run02"):
        pictures = {f"{run}/training/class{n:02}.png": layouts.picture(80 * n) for n in order}
        tests = {f"{run}/test/item{i:02}.png": layouts.picture(80 * n) for i, n in order.items()}
        lines = [f"{run}/test/item{i:02}.png {run}/training/class{n:02}.png" for i, n in order.items()]
        write(tmp_path / "all_runs", {**pictures, **tests, f"{run}/class_labels.txt": "\n".join(lines)})
    with pytest.raises(pm.InputError, match="has no run03/class_labels.txt"):
        PUBLISHED["omniglot"].examples(tmp_path, "all")
    asked = PUBLISHED["omniglot"].examples(tmp_path, "run02")
    assert [(one.id, one.truth) for one in asked] == [("run02/item01", 2), ("run02/item02", 3), ("run02/item03", 1)]
    said = {"run02/item01": "It is class 2.", "run02/item02": "class02.png", "run02/item03": "no idea"}
    report = reach("omniglot", tmp_path, llava(said), split="run02")
    assert (report.metrics["accuracy"], report.metrics["error"], report.unparsed) == (1 / 3, pytest.approx(2 / 3), 1)
    assert evaluate(small("clip"), "omniglot", data=tmp_path, split="run02").metrics["accuracy"] == 1  # equal pictures
    assert evaluate(small("flamingo"), "omniglot", data=tmp_path, split="run01").examples == 3
    with pytest.raises(pm.InputError, match="does not read 3 pictures, each with its words"):
        evaluate(small("llava"), "omniglot", data=tmp_path, split="run01")


PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def test_every_benchmark_is_documented():
    named = {name for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)}
    assert named == set(PUBLISHED)


def test_the_page_runs(command, tmp_path, monkeypatch, capsys):
    """The commands and the code that the page shows, in a folder with the data that they name."""
    layouts.scienceqa(tmp_path / "ScienceQA")
    layouts.pope(tmp_path / "pope")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"answers.jsonl": llava({"4": "B", "7": "A"})})
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "evaluation.md", "exec"), {})
    assert capsys.readouterr().out == "1.0 (1.0, 1.0) 0\n"
    said = {kind + n: "yes" for kind in (0, 10_000_000, 20_000_000) for n in (1, 2)}
    write(tmp_path, {"answers.jsonl": llava(said)})
    (shown,) = re.findall(r"^    panmodal (score .*)$", PAGE, re.MULTILINE)
    told = json.loads(command(*shown.split(), "--json").out)
    (printed,) = re.findall(r'^    (\{"task".*?\})$', PAGE, re.MULTILINE | re.DOTALL)
    assert list(told) == list(json.loads(printed.replace(", …", "")))
