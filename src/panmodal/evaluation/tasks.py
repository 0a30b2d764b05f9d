"""Tasks by name. Each takes a model, a split and a number of examples, and returns its metrics."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from panmodal.data.sample import Image, assistant, user
from panmodal.errors import InputError, suggest
from panmodal.evaluation import hybrid
from panmodal.evaluation.binding import audio_image, audio_plus_image, audio_text
from panmodal.evaluation.hallucination import SceneHallucinations, chair, pope
from panmodal.evaluation.metrics import accuracy, last_words, recall_at, share
from panmodal.evaluation.mitigation import Mitigated
from panmodal.evaluation.published import PUBLISHED
from panmodal.evaluation.reasoned import Reasoner, reasoned, unhurried
from panmodal.evaluation.results import Record, Report, provenance
from panmodal.evaluation.scenes import SceneQuestions
from panmodal.evaluation.segmentation import segment
from panmodal.evaluation.shots import domain_mix
from panmodal.evaluation.task import Example, Progress, Task, answered
from panmodal.families import Binding, BlipHybrid, Contrastive, Conversational, Family, Segmenter
from panmodal.playground import (
    HELD_OUT,
    KINDS,
    SEEN,
    SPLITS,
    caption,
    make_scene,
    one_changed,
    render,
)
from panmodal.playground.new_words import Lesson
from panmodal.playground.questions import MULTI_STEP
from panmodal.playground.world import PAIRS, random_source, shuffled, single_object_scene
from panmodal.prompting.correction import Correction
from panmodal.prompting.reasoning import Reasoning

PICTURES = ("own", "swapped", "none")
ROWS = 16  # prompts of many pictures that are answered at a time


@dataclass(frozen=True)
class Asked:
    """How a task is to be run. `pictures` other than the question's "own" show what an answer owes to
    them: "swapped" for another scene's, or among the examples, or "none". `shots` is the number of examples in a
    prompt, for tasks that have any; `retriever` says which (`Examples`)."""

    split: str
    count: int
    pictures: str
    shots: int | None
    retriever: str
    progress: Progress


def evaluate(
    model: Family[Any] | Conversational,
    task: str,
    *,
    split: str | None = None,
    count: int | None = None,
    pictures: str = "own",
    shots: int | None = None,
    retriever: str = "random",
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    cot: Reasoning | None = None,
    decoding: Mapping[str, Any] | None = None,
    correction: Correction | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Runs a task on a model.

    The playground's scenes of `test` and `held-out` are of seeds that training never uses. A published benchmark lies
    in the folder `data`; each has a usual split. `count` is how many examples, by default as many as the task's
    published figures are for. With `cot` the model reasons so before it answers, in tasks that ask questions.
    `decoding` are further options of `Sampling`, such as `contrast`; by `correction` what a model says is corrected.

    In the folder `out` each answer is kept as it comes, and the result with all that it depends on: what was answered
    there already is not asked again. Raises InputError if what is there was made in another way.
    """
    check_task(model, task)
    if decoding or correction:
        if not isinstance(model, Conversational) or cot is not None:
            raise InputError("decoding and correction are for what models that converse say at once, without cot")
        model = Mitigated(model, decoding or {}, correction)  # type: ignore[assignment]
    if task in PUBLISHED and (data is not None or task not in TASKS):
        return _published(model, task, split, count, data, out, cot, progress)
    _, asks, usual = TASKS[task]
    if data is not None:
        raise InputError(f"{task} makes its own data")
    split, count = split or "test", count or usual
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}{suggest(split, SPLITS)}")
    if pictures not in PICTURES:
        raise InputError(f"unknown pictures {pictures!r}{suggest(pictures, PICTURES)}")
    if shots is not None and not 0 <= shots <= 64:
        raise InputError(f"shots is {shots}; it must lie between 0 and 64")
    settings: dict[str, Any] = {"pictures": pictures}
    if isinstance(asks, SceneQuestions) and cot is not None:
        settings["cot"] = cot.to_json()
        run: Run = partial(reasoned, cot=cot, scenes=replace(asks, count=count, pictures=pictures))
    elif cot is not None:
        asking = [name for name, (_, one, _) in TASKS.items() if isinstance(one, SceneQuestions)]
        raise InputError(f"{task} is not asked with a chain of thought; known: {', '.join(asking)}")
    elif isinstance(asks, SceneQuestions | SceneHallucinations):
        scenes = replace(asks, count=count, pictures=pictures)
        return _answered(model, task, split, settings, scenes, scenes.examples(Path(), split), out, progress)
    else:
        run = asks
    settings |= {"count": count, "shots": shots, "retriever": retriever}
    record = _record(out, model, task, split, settings)
    if record and record.result:
        return record.result.report
    report = Report(model.name, task, split, *run(model, Asked(split, count, pictures, shots, retriever, progress)))
    if record:
        record.write(report, None, (), {})
    return report


def _published(
    model: Family[Any] | Conversational | Mitigated,
    task: str,
    split: str | None,
    count: int | None,
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    cot: Reasoning | None,
    progress: Progress,
) -> Report:
    benchmark = PUBLISHED[task]
    if data is None:
        raise InputError(f"{task} needs its data's folder: --data DIR")
    split, examples = _examples(benchmark, task, split, data)
    examples = examples[:count]
    if cot is None:
        return _answered(model, task, split, {}, benchmark, examples, out, progress)
    if not isinstance(model, Conversational):
        raise InputError(f"{model.name} does not converse, and so cannot reason before it answers")
    examples, settings = [unhurried(example) for example in examples], {"cot": cot.to_json()}
    return _answered(model, task, split, settings, benchmark, examples, out, progress, Reasoner(model, cot))


def score(
    task: str,
    predictions: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    partial: bool = False,
) -> Report:
    """What somebody's answers to a published benchmark reach, without a model: a file of answers in LLaVA's form or the
    official one. Each question of the split must have an answer, unless `partial`."""
    if task not in PUBLISHED:
        raise InputError(f"unknown benchmark {task!r}{suggest(task, PUBLISHED)}")
    benchmark, path = PUBLISHED[task], Path(predictions)
    if not path.exists():
        raise InputError(f"there is no file {path}")
    split, examples = _examples(benchmark, task, split, data)
    answers = benchmark.answers(path, examples)
    return _report(None, task, split, benchmark, answered(examples, answers, partial), answers)


def check_task(model: Family[Any] | Conversational, task: str) -> None:
    """Raises InputError for a task that there is not, or that is not for such a model."""
    if task not in TASKS and task not in PUBLISHED:
        raise InputError(f"unknown task {task!r}{suggest(task, [*TASKS, *PUBLISHED])}")
    kinds = TASKS[task][0] if task in TASKS else PUBLISHED[task].kinds
    if not isinstance(model, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{task} asks for a {wanted} model, and {model.name} is {type(model).__name__}")


def _record(
    out: str | os.PathLike[str] | None,
    model: Family[Any] | Conversational | Mitigated,
    task: str,
    split: str,
    settings: Mapping[str, Any],
    benchmark: Task | None = None,
    examples: Sequence[Example] = (),
) -> Record | None:
    """Where answers are kept, if they are; `settings` are what else they depend on"""
    if out is None:
        return None
    return Record(Path(out), task, provenance(model, task, split, settings, benchmark, examples))


def _answered(
    model: Family[Any] | Conversational | Mitigated,
    task: str,
    split: str,
    settings: Mapping[str, Any],
    benchmark: Task,
    examples: Sequence[Example],
    out: str | os.PathLike[str] | None,
    progress: Progress,
    reasoner: Reasoner | None = None,
) -> Report:
    """What a model's answers reach, kept or not; by a `reasoner`, if there is one, that asks it"""
    ask = partial(benchmark.ask, reasoner or model)
    record = _record(out, model, task, split, settings, benchmark, examples)
    told: dict[str, str] = {}
    for one, text in zip(examples, record.answers(examples, ask) if record else ask(examples), strict=True):
        told[one.id] = text
        progress(len(told), len(examples))
    report = _report(model.name, task, split, benchmark, examples, told)
    if record:
        record.write(report, benchmark, examples, told)
    return report


def _examples(
    benchmark: Task, task: str, split: str | None, data: str | os.PathLike[str]
) -> tuple[str, Sequence[Example]]:
    split = split or benchmark.splits[0]
    if split not in benchmark.splits and not benchmark.open_splits:
        raise InputError(f"{task} has no split {split!r}{suggest(split, benchmark.splits)}")
    if not Path(data).is_dir():
        raise InputError(f"there is no folder {data}")
    examples = benchmark.examples(Path(data), split)
    if not examples:
        raise InputError(f"{data} has no questions of {task}, split {split}")
    return split, examples


def _report(
    model: str | None,
    task: str,
    split: str,
    benchmark: Task,
    examples: Sequence[Example],
    answers: Mapping[str, str],
) -> Report:
    scored = benchmark.score(examples, answers)
    return Report(model, task, split, len(examples), scored.metrics, scored.intervals, scored.unparsed)


def _new_words(model: Conversational, asked: Asked) -> tuple[int, dict[str, Any]]:
    """What a picture is called, by words that the examples in the prompt alone explain; both must be right.

    `text_only` is what one reaches who reads the examples' sentences and guesses among the pairs of their words that
    they do not have. Swapped pictures are those of the examples, shuffled among them.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    guessed: list[float] = []
    for start in range(0, asked.count, ROWS):
        conversations, expected = [], []
        for seed in range(start, min(start + ROWS, asked.count)):
            lesson = Lesson(seed, asked.split)
            examples, query = lesson.shots(4 if asked.shots is None else asked.shots), lesson.query
            scenes = [example.scene for example in examples]
            if asked.pictures == "swapped":
                scenes = shuffled(random_source("swapped", seed), scenes)
            shown = [Image(render(s)) if asked.pictures != "none" else "" for s in (*scenes, query.scene)]
            said = [m for x, e in zip(shown, examples, strict=False) for m in (user(x), assistant(e.text))]
            conversations.append([*said, user(shown[-1])])
            expected.append(query.words)
            pairs = {example.words for example in examples}
            unsaid = {(a, b) for a, _ in pairs for _, b in pairs} - pairs
            guessed.append(1 / len(unsaid) if query.words in unsaid else 0.0)
        replies = model.reply_all(conversations, rows=ROWS, max_tokens=16)
        for (colour, shape), reply in zip(expected, replies, strict=True):
            words = last_words(reply.text, 2)
            right["accuracy"].append(words == [colour, shape])
            right["colour"].append(words[0] == colour)
            right["shape"].append(words[1] == shape)
        asked.progress(len(guessed), asked.count)
    return len(guessed), {**{name: share(hits) for name, hits in right.items()}, "text_only": fmean(guessed)}


def _retrieval(
    model: Contrastive | BlipHybrid, asked: Asked, pairs: bool = False, gallery: int = 100
) -> tuple[int, dict[str, Any]]:
    """Pictures and detailed captions, each found by the other among a hundred: by the contrast alone, and, by a
    model that matches, `reranked`. With `pairs`, every picture has a twin that differs in one attribute."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, asked.count, gallery):
        scenes = [make_scene(seed, asked.split) for seed in range(start, start + gallery // (1 + pairs))]
        if pairs:
            scenes += [one_changed(scene, random_source("twin", asked.split, scene.seed))[1] for scene in scenes]
        captions = [caption(scene, "detailed") for scene in scenes]
        images = [Image(render(s)) for s in scenes]
        likeness = model.embed(images) @ model.embed(captions).T
        fits = torch.tensor([[a == b for a in captions] for b in captions])
        for k in (1, 5):
            hits[f"image_to_text_recall_at_{k}"] += recall_at(k, likeness, fits).tolist()
            hits[f"text_to_image_recall_at_{k}"] += recall_at(k, likeness.T, fits).tolist()
        if isinstance(model, BlipHybrid) and model.does("match"):
            of_images, of_texts = hybrid.rerank(model, images, captions, likeness)
            hits["reranked_image_to_text_recall_at_1"] += recall_at(1, of_images, fits).tolist()
            hits["reranked_text_to_image_recall_at_1"] += recall_at(1, of_texts, fits).tolist()
        asked.progress(min(start + gallery, asked.count), asked.count)
    metrics = {name: share(h) for name, h in hits.items()}
    for kind in ("", "reranked_") if model.does("match") else ("",):
        both = [metrics[f"{kind}{way}_recall_at_1"] for way in ("image_to_text", "text_to_image")]
        metrics[f"{kind}recall_at_1"] = sum(both) / 2
    return len(hits["image_to_text_recall_at_1"]), metrics


def _zero_shot(model: Contrastive, asked: Asked) -> tuple[int, dict[str, Any]]:
    """One object, named among all 48 pairs of colour and shape; the object's pair is one that training
    showed, or, in the held-out split, one that it never did."""
    names = [f"{colour} {shape}" for colour, shape in PAIRS]
    labels = model.embed_labels(names)
    shown = sorted(HELD_OUT) if asked.split == "held-out" else SEEN
    scores, target = [], []
    for start in range(0, asked.count, 64):
        some = [(seed, *shown[seed % len(shown)]) for seed in range(start, min(start + 64, asked.count))]
        scores.append(model.embed([Image(render(single_object_scene(s, c, h))) for s, c, h in some]) @ labels.T)
        target += [names.index(f"{c} {h}") for _, c, h in some]
        asked.progress(len(target), asked.count)
    return len(target), {"accuracy": accuracy(torch.cat(scores), torch.tensor(target))}


Run = Callable[[Any, Asked], tuple[int, dict[str, Any]]]

# name -> the kinds of models that it is for, what is asked or done, the usual number of examples
TASKS: dict[str, tuple[tuple[type[Any], ...], SceneHallucinations | SceneQuestions | Run, int]] = {
    "hallucination": ((Conversational,), SceneHallucinations(), 3500),
    "playground/vqa": ((Conversational,), SceneQuestions(tuple(KINDS)), 2800),
    "playground/extremes": ((Conversational,), SceneQuestions(("extreme",)), 500),
    "playground/multi-step": ((Conversational,), SceneQuestions(MULTI_STEP), 1000),
    "playground/pope": ((Conversational,), pope, 3000),
    "playground/chair": ((Conversational,), chair, 500),
    "playground/new-words": ((Conversational,), _new_words, 1000),
    "playground/domain-mix": ((Conversational,), domain_mix, 1000),
    "playground/retrieval": ((Contrastive, BlipHybrid), _retrieval, 2000),
    "playground/retrieval-pairs": ((Contrastive, BlipHybrid), partial(_retrieval, pairs=True), 2000),
    "playground/zero-shot": ((Contrastive,), _zero_shot, 2000),
    "playground/audio-image": ((Binding,), audio_image, 1000),
    "playground/audio-text": ((Binding,), audio_text, 1000),
    "playground/audio-plus-image": ((Binding,), audio_plus_image, 1000),
    "playground/segment": ((Segmenter,), segment, 1000),
    "playground/match": ((BlipHybrid,), hybrid.match, 2000),
    "playground/caption": ((BlipHybrid,), hybrid.captions, 1000),
}
