"""Tasks asked with a chain of thought: of the playground with a score for the rationales, of published benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from panmodal.data.sample import Conversation, Image, Message, Sample, assistant, user
from panmodal.evaluation.bootstrap import Score
from panmodal.evaluation.metrics import normalised, share
from panmodal.evaluation.multiple_choice import LETTER
from panmodal.evaluation.scenes import SceneTask
from panmodal.evaluation.shots import store_of
from panmodal.evaluation.task import BRIEFLY, Example, Task
from panmodal.playground import make_scene, questions, render
from panmodal.playground.programs import ANSWERS
from panmodal.playground.steps import check
from panmodal.prompting.examples import Examples
from panmodal.prompting.reasoning import MAX_TOKENS, Reader, Reasoning, Solution, parted

STORE = 240  # examples with rationales to choose from


class Reasoner:
    """A model that reasons before it answers, for who asks for nothing but answers: the final one, or "" for none.
    `solutions` are those to what it was asked last."""

    def __init__(self, model: Any, cot: Reasoning, read: Reader) -> None:
        self.model, self.cot, self.read = model, cot, read
        self.name, self.interleaved = model.name, model.interleaved
        self.solutions: Iterator[Solution] = iter(())

    def reply_all(self, conversations: Sequence[Conversation], rows: int = 16, **_: Any) -> list[Message]:
        found = self.cot.solve(self.model, conversations, rows, self.read)
        self.solutions = iter(found)
        return [assistant(one.answer or "") for one in found]


class Reasoned(Task):
    """A benchmark asked with a chain of thought. An answer is the benchmark's own, the rationale before it, and, of
    several samples, theirs as `votes`."""

    def __init__(self, task: Task, cot: Reasoning, reader: Reader = parted) -> None:
        self.task, self.cot, self.reader = task, cot, reader
        self.splits, self.open_splits, self.takes_shots = task.splits, task.open_splits, False
        self.first, self.rows, self.metric, self.max_tokens = task.first, task.rows, task.metric, MAX_TOKENS

    def examples(self, data: Path, split: str) -> list[Example]:
        return [unhurried(one) for one in self.task.examples(data, split)]

    def ask(self, model: Any, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        reasoner = Reasoner(model, self.cot, self.reader)
        for answer in self.task.ask(reasoner, examples):
            found = next(reasoner.solutions)
            votes = {"votes": found.votes} if self.cot.votes > 1 else {}
            yield {"rationale": found.rationale, "answer": answer, **votes}

    def mark(self, example: Example, answer: Mapping[str, Any]) -> float:
        return self.task.mark(example, answer["answer"])

    def marks(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> list[float]:
        return self.task.marks(examples, _final(answers))

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        return self.task.score(examples, _final(answers))


def _final(answers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: answer["answer"] for key, answer in answers.items()}


def unhurried(example: Example) -> Example:
    """A question without the request to answer it at once"""
    parts = [
        part.removesuffix(BRIEFLY).removesuffix(LETTER).rstrip() if isinstance(part, str) else part
        for part in example.parts
    ]
    return replace(example, parts=tuple(parts))


class ReasonedScenes(Reasoned):
    """Questions about scenes, and their rationales.

    `unparsed` is to how many there was no answer, and `unparsed_votes` how many samples of several had none. Of the
    sentences of rationales that are in the playground's words, `steps_right` is the share that is true of what is
    shown, `steps_right_if_answered` that in right answers, and `steps_unparsed` how many others there are. Of the right
    answers with steps `grounded` is the share whose steps all hold.
    """

    def __init__(self, task: SceneTask, cot: Reasoning) -> None:
        super().__init__(task, cot, read)
        self.retriever = task.retriever

    def ask(self, model: Any, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        if self.cot.way == "few-shot" and self.cot.examples is None:
            self.cot = replace(self.cot, examples=_worked(self.retriever, self.cot.trigger))
        return super().ask(model, examples)

    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        scored = super().score(examples, answers)
        steps: list[bool | None] = []
        if_answered: list[list[bool | None]] = []  # those of each right answer
        for one in examples:
            shown, answer = one.about["shown"], answers[one.id]
            told = check(answer["rationale"], shown) if shown else []
            steps += told
            if told and self.mark(one, answer):
                if_answered.append(told)
        read_steps = [step for step in steps if step is not None]
        metrics = dict(scored.metrics)
        if read_steps:
            metrics |= {"steps_right": share(read_steps), "steps_unparsed": len(steps) - len(read_steps)}
            metrics |= _of_right(if_answered)
        metrics["unparsed"] = sum(not answers[one.id]["answer"] for one in examples)
        if self.cot.votes > 1:
            metrics["unparsed_votes"] = sum(answers[one.id]["votes"].count(None) for one in examples)
        return replace(scored, metrics=metrics)


def _of_right(steps: Sequence[Sequence[bool | None]]) -> dict[str, float]:
    every = [step for told in steps for step in told if step is not None]
    if not every:
        return {}
    return {"steps_right_if_answered": share(every), "grounded": share([all(told) for told in steps])}


def read(text: str) -> tuple[str, str | None]:
    """As `parted`, of answers that the playground has; a line's last sentence is the answer, for its rationales have
    none but "that makes 2. 2"."""
    before, answer = parted(text)
    earlier, _, last = (answer or "").rpartition(". ")
    said = normalised(last)
    return f"{before}\n{earlier}".strip(), said if said in ANSWERS else None


def _worked(retriever: str, trigger: str) -> Examples:
    """Questions about training's scenes, asked with the trigger, and their rationales and answers"""
    samples = []
    for seed in range(10**6, 10**6 + STORE):
        scene = make_scene(seed)
        for question in questions(scene, 1):
            asked = user(Image(render(scene)), f"{question.text} {trigger}")
            samples.append(Sample((asked, assistant(f"{question.rationale} {question.answer}"))))
    return store_of(samples, retriever)
