"""Questions answered: about few pictures, looked at once or for each question anew; and by tiny/chat, in batches or one
by one. Run as `python -m benchmarks.answers pope ours FOLDER`, or with `batches` and `peer`; seconds are the
processor's, of one thread."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

import panmodal as pm
from benchmarks.checkpoints import photographs, write
from benchmarks.models import peak_mb
from panmodal.evaluation import PUBLISHED
from panmodal.evaluation.scenes import SceneQuestions

PICTURES, ASKED = 8, 6  # questions about each, as POPE's
QUESTIONS = 1000
THINGS = "dog cat car person chair bottle".split()
Side = Callable[[Path], Callable[[], list[str]]]


def prepare(task: str, folder: Path) -> None:
    """LLaVA with random weights, and POPE's files; tiny/chat needs nothing."""
    if task != "pope":
        return
    write("chat", folder)
    names = [path.name for path in photographs(folder, PICTURES)]
    asked = [(name, thing, label) for name in names for thing, label in zip(THINGS, ("yes", "no") * 3, strict=True)]
    lines = [
        {"question_id": i, "image": name, "text": f"Is there a {thing} in the image?", "label": label}
        for i, (name, thing, label) in enumerate(asked)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "coco_pope_random.json").write_text(content)


def pope(folder: Path, whole: bool = False) -> Callable[[], list[str]]:
    """Every question of POPE answered; if `whole`, every prompt is gone through from its first token to its last."""
    model: Any = pm.load(folder)
    if whole:
        model._heads = lambda encoded: []
        model._look = lambda shown: torch.cat([x for one in shown for x in model._encode([one])])
    examples = PUBLISHED["pope"].examples(folder, "random")

    def answers() -> list[str]:
        model.forget()
        return list(PUBLISHED["pope"].ask(model, examples))

    return answers


def batches(folder: Path, alone: bool = False) -> Callable[[], list[str]]:
    """The playground's questions answered by tiny/chat, as it is evaluated, or one by one."""
    model: Any = pm.load("tiny/chat")
    task = SceneQuestions(count=QUESTIONS)
    examples = task.examples(folder, "test")

    def one_by_one() -> Iterable[str]:
        return (model.reply(one.messages, max_tokens=task.max_tokens).text for one in examples)

    return lambda: list(one_by_one() if alone else task.ask(model, examples))


SIDES: dict[tuple[str, str], Side] = {
    ("pope", "ours"): pope,
    ("pope", "peer"): lambda folder: pope(folder, whole=True),
    ("batches", "ours"): batches,
    ("batches", "peer"): lambda folder: batches(folder, alone=True),
}


def main(task: str, side: str, folder: str) -> None:
    torch.set_num_threads(1)
    answers = SIDES[task, side](Path(folder))
    began = time.process_time()
    said: Sequence[str] = answers()
    print(json.dumps({"s": (time.process_time() - began) / len(said), "answers": said, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
