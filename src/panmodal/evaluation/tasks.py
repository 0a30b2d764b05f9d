"""Tasks by name, and what runs them on a model or scores somebody's answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from panmodal.errors import InputError, suggest
from panmodal.evaluation.binding import SceneSounds, SceneSums
from panmodal.evaluation.hallucination import SceneChair, SceneHallucinations, ScenePope
from panmodal.evaluation.hybrid import Match, SceneCaptions
from panmodal.evaluation.mitigation import Mitigated
from panmodal.evaluation.published import PUBLISHED
from panmodal.evaluation.reasoned import Reasoned, ReasonedScenes
from panmodal.evaluation.results import Record, Report, digest, provenance
from panmodal.evaluation.retrieval import SceneRetrieval, ZeroShot
from panmodal.evaluation.scenes import SceneQuestions, SceneTask
from panmodal.evaluation.segmentation import SceneMasks
from panmodal.evaluation.shots import EMBEDDER, DomainMix, NewWords, Shown, TwoWords, solved, store_of
from panmodal.evaluation.task import Example, Progress, Task, answered
from panmodal.families import Binding, BlipHybrid, Contrastive, Conversational, Family, Segmenter
from panmodal.playground.questions import MULTI_STEP
from panmodal.prompting.correction import Correction
from panmodal.prompting.examples import LIKENESS
from panmodal.prompting.reasoning import Reasoning

PICTURES = ("own", "swapped", "none")


def evaluate(
    model: Family[Any] | Conversational,
    task: str,
    *,
    split: str | None = None,
    count: int | None = None,
    pictures: str = "own",
    shots: int | None = None,
    retriever: str = "random",
    shots_split: str | None = None,
    embedder: str = EMBEDDER,
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

    `shots` examples with their answers stand before each question, of the split `shots_split`, by default the one to
    train on; `retriever` says which (`Examples`), and by whose vectors if they are likened, `embedder`.

    In the folder `out` each answer is kept as it comes, and the result with all that it depends on: what was answered
    there already is not asked again. Raises InputError if what is there was made in another way.
    """
    check_task(model, task)
    if shots is not None and not 0 <= shots <= 64:
        raise InputError(f"shots is {shots}; it must lie between 0 and 64")
    settings: dict[str, Any] = {}
    benchmark: Task
    published = task in PUBLISHED and (data is not None or task not in TASKS)
    if pictures not in PICTURES:
        raise InputError(f"unknown pictures {pictures!r}{suggest(pictures, PICTURES)}")
    if pictures != "own" and (published or Conversational not in TASKS[task][0]):
        raise InputError(f"{task} is asked about its own pictures alone; leave out pictures")
    if published:
        if data is None:
            raise InputError(f"{task} needs its data's folder: --data DIR")
        benchmark = PUBLISHED[task]
    else:
        if data is not None:
            raise InputError(f"{task} makes its own data")
        settings = {"pictures": pictures, "shots": shots, "retriever": retriever}
        benchmark = _scenes(task, count, pictures, shots, retriever)
    if cot is not None:
        benchmark = _reasoned(model, task, benchmark, cot)
        settings["cot"] = cot.to_json()
    split, examples = _examples(benchmark, task, split, data)
    if published:
        examples = examples[:count]
    asked: Any = model
    if shots is not None and not isinstance(benchmark, TwoWords | ReasonedScenes):
        store = _store(benchmark, task, split, data, shots_split)
        settings |= {"shots": shots}
        if shots:
            settings |= {"retriever": retriever, "examples": digest(store)}
            settings |= {"embedder": embedder} if retriever in LIKENESS else {}
            asked = Shown(model, store_of(solved(store), retriever, embedder), shots)
    elif published and (shots_split or retriever != "random"):
        raise InputError("a retriever and a split of examples are for shots; say how many")
    if decoding or correction:
        if not isinstance(model, Conversational) or cot is not None:
            raise InputError("decoding and correction are for what models that converse say at once, without cot")
        asked = Mitigated(asked, decoding or {}, correction)
        settings["mitigation"] = asked.to_json()
    ask = partial(benchmark.ask, asked)
    record = None
    if out is not None:
        made = provenance(model, task, split, settings, benchmark, examples)
        record = Record(Path(out), task, made, benchmark.rows)
    told: dict[str, Any] = {}
    for one, answer in zip(examples, record.answers(examples, ask) if record else ask(examples), strict=True):
        told[one.id] = answer
        progress(len(told), len(examples))
    report = _report(model.name, task, split, benchmark, examples, told)
    if record:
        record.write(report, benchmark, examples, told)
    return report


def _scenes(task: str, count: int | None, pictures: str, shots: int | None, retriever: str) -> SceneTask:
    _, scenes, usual = TASKS[task]
    return replace(scenes, count=count or usual, pictures=pictures, shots=shots, retriever=retriever)


def _reasoned(model: Any, task: str, benchmark: Task, cot: Reasoning) -> Reasoned:
    if not isinstance(model, Conversational):
        raise InputError(f"{model.name} does not converse, and so cannot reason before it answers")
    if isinstance(benchmark, SceneQuestions):
        return ReasonedScenes(benchmark, cot)
    if isinstance(benchmark, SceneTask):
        asking = [name for name, (_, one, _) in TASKS.items() if isinstance(one, SceneQuestions)]
        raise InputError(f"{task} is not asked with a chain of thought; known: {', '.join(asking)}")
    return Reasoned(benchmark, cot)


def _store(
    benchmark: Task, task: str, split: str, data: str | os.PathLike[str] | None, source: str | None
) -> Sequence[Example]:
    """Examples to be shown before those of a split"""
    if not benchmark.takes_shots or Conversational not in benchmark.kinds:
        raise InputError(f"{task} is not asked with examples before its questions; leave out shots")
    source = source or next((one for one in benchmark.splits if one.startswith("train")), None)
    if source is None:
        raise InputError(f"{task} has no split to train on; name one by --shots-split: {', '.join(benchmark.splits)}")
    if source == split:
        raise InputError(f"the examples' split is the one that is asked, {split!r}; name another by --shots-split")
    return _examples(benchmark, task, source, data)[1]


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
    if not kinds:
        raise InputError(f"{task} is of answers that are there already; `panmodal score {task} ANSWERS --data DIR`")
    if not isinstance(model, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{task} asks for a {wanted} model, and {model.name} is {type(model).__name__}")


def _examples(
    benchmark: Task, task: str, split: str | None, data: str | os.PathLike[str] | None
) -> tuple[str, Sequence[Example]]:
    split = split or benchmark.splits[0]
    if split not in benchmark.splits and not benchmark.open_splits:
        raise InputError(f"{task} has no split {split!r}{suggest(split, benchmark.splits)}")
    if not Path(data or ".").is_dir():
        raise InputError(f"there is no folder {data}")
    examples = benchmark.examples(Path(data or "."), split)
    if not examples:
        raise InputError(f"{data} has no questions of {task}, split {split}")
    return split, examples


def _report(
    model: str | None,
    task: str,
    split: str,
    benchmark: Task,
    examples: Sequence[Example],
    answers: Mapping[str, Any],
) -> Report:
    scored = benchmark.score(examples, answers)
    return Report(model, task, split, len(examples), scored.metrics, scored.intervals, scored.unparsed)


# name -> the kinds of models that it is for, what is asked or done, the usual number of examples
TASKS: dict[str, tuple[tuple[type[Any], ...], SceneTask, int]] = {
    "hallucination": ((Conversational,), SceneHallucinations(), 3500),
    "playground/vqa": ((Conversational,), SceneQuestions(), 2800),
    "playground/extremes": ((Conversational,), SceneQuestions(question_kinds=("extreme",)), 500),
    "playground/multi-step": ((Conversational,), SceneQuestions(question_kinds=MULTI_STEP), 1000),
    "playground/pope": ((Conversational,), ScenePope(), 3000),
    "playground/chair": ((Conversational,), SceneChair(), 500),
    "playground/new-words": ((Conversational,), NewWords(), 1000),
    "playground/domain-mix": ((Conversational,), DomainMix(), 1000),
    "playground/retrieval": ((Contrastive, BlipHybrid), SceneRetrieval(), 2000),
    "playground/retrieval-pairs": ((Contrastive, BlipHybrid), SceneRetrieval(pairs=True), 2000),
    "playground/zero-shot": ((Contrastive,), ZeroShot(), 2000),
    "playground/audio-image": ((Binding,), SceneSounds(), 1000),
    "playground/audio-text": ((Binding,), SceneSounds(to="text"), 1000),
    "playground/audio-plus-image": ((Binding,), SceneSums(), 1000),
    "playground/segment": ((Segmenter,), SceneMasks(), 1000),
    "playground/match": ((BlipHybrid,), Match(), 2000),
    "playground/caption": ((BlipHybrid,), SceneCaptions(), 1000),
}
