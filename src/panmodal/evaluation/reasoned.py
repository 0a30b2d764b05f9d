"""Tasks asked with a chain of thought: of the playground with a score for the rationales, of published benchmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from panmodal.data.sample import Conversation, Image, Message, Sample, assistant, user
from panmodal.evaluation.metrics import exact_match, normalised, share
from panmodal.evaluation.multiple_choice import LETTER
from panmodal.evaluation.scenes import SceneQuestions
from panmodal.evaluation.shots import store_of
from panmodal.evaluation.task import BRIEFLY, Example
from panmodal.families import Conversational
from panmodal.playground import make_scene, questions, render
from panmodal.playground.programs import ANSWERS
from panmodal.playground.steps import check
from panmodal.prompting.examples import Examples
from panmodal.prompting.reasoning import Reasoning, parted

if TYPE_CHECKING:
    from panmodal.evaluation.tasks import Asked

ROWS = 64  # questions asked at a time
STORE = 240  # examples with rationales to choose from


@dataclass(frozen=True)
class Reasoner:
    """A model that reasons before it answers, for who asks for nothing but answers: the final one, or "" for none."""

    model: Any  # `Conversational`
    cot: Reasoning

    def reply_all(self, conversations: Sequence[Conversation], rows: int = 16, **_: Any) -> list[Message]:
        return [assistant(found.answer or "") for found in self.cot.solve(self.model, conversations, rows)]


def unhurried(example: Example) -> Example:
    """A question without the request to answer it at once"""
    parts = [
        part.removesuffix(BRIEFLY).removesuffix(LETTER).rstrip() if isinstance(part, str) else part
        for part in example.parts
    ]
    return replace(example, parts=tuple(parts))


def reasoned(model: Conversational, asked: Asked, cot: Reasoning, scenes: SceneQuestions) -> tuple[int, dict[str, Any]]:
    """Exact match of final answers to questions about scenes.

    `unparsed` is to how many there was none, and `unparsed_votes` how many samples of several had none. Of the
    sentences of rationales that are in the playground's words, `steps_right` is the share that is true of what is
    shown, `steps_right_if_answered` that in right answers, and `steps_unparsed` how many others there are. Of the right
    answers with steps `grounded` is the share whose steps all hold.
    """
    if cot.way == "few-shot" and cot.examples is None:
        cot = replace(cot, examples=_worked(asked.retriever, cot.trigger))
    right: dict[str, list[bool]] = defaultdict(list)
    steps: list[bool | None] = []
    if_answered: list[list[bool | None]] = []  # those of each right answer
    votes = {"unparsed": 0, "unparsed_votes": 0}
    done, drawn = 0, scenes.drawn(asked.split)
    while some := list(islice(drawn, ROWS)):
        shown = [scenes.shown(scene) for scene, _ in some]
        prompts = [
            [user(*([Image(render(scene))] if scene else []), question.text)]
            for scene, (_, question) in zip(shown, some, strict=True)
        ]
        for scene, (_, question), found in zip(shown, some, cot.solve(model, prompts, ROWS, read), strict=True):
            hit = found.answer is not None and exact_match(found.answer, question.answer)
            right[question.kind].append(hit)
            votes["unparsed"] += found.answer is None
            votes["unparsed_votes"] += found.unparsed
            told = check(found.rationale, scene) if scene else []
            steps += told
            if hit and told:
                if_answered.append(told)
        done += len(some)
        asked.progress(done, asked.count)
    if cot.votes == 1:
        del votes["unparsed_votes"]
    every = [hit for hits in right.values() for hit in hits]
    metrics = {"accuracy": share(every), "by_kind": {k: share(hits) for k, hits in right.items()}}
    read_steps = [step for step in steps if step is not None]
    if read_steps:
        metrics |= {"steps_right": share(read_steps), "steps_unparsed": len(steps) - len(read_steps)}
        metrics |= _of_right(if_answered)
    return done, {**metrics, **votes}


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
