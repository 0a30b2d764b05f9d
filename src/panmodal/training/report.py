"""What a run leaves for people: answers to look at while the model learns, and at the end its card."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from panmodal.data.readers import Source
from panmodal.data.sample import Message, Sample
from panmodal.errors import InputError
from panmodal.families import Chat, Family
from panmodal.training.journal import read_log
from panmodal.training.recipe import Recipe

STYLE = (
    "body{font:16px system-ui;margin:2em auto;max-width:60em}section{display:flex;gap:1.5em;margin:2em 0}"
    "img{width:224px;object-fit:contain;align-self:start;image-rendering:pixelated}td{padding:.1em .8em .1em 0}"
    ".truth{color:#176}.step{color:#888;text-align:right}"
)


class Answers:
    """`answers.html` in the run's folder: pictures, what is asked about them, and what the model says at each saved
    state. `answers.jsonl` beside it holds the answers."""

    def __init__(self, source: Source, count: int, out: Path) -> None:
        self.out, self.asked = out, [source.sample(i) for i in range(min(count, source.size or count))]

    def write(self, family: Family[Any], stage: str, step: int) -> None:
        """Asks; leaves the model, and the run's random numbers, as they were. Does nothing for a family that does not
        speak."""
        if not isinstance(family, Chat) and not family.does("caption"):
            return
        was_training = family.model.training
        family.model.eval()
        with torch.random.fork_rng():
            said = [_answer(family, sample) for sample in self.asked]
        if isinstance(family, Chat):
            family.forget()
        family.model.train(was_training)
        with (self.out / "answers.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, "answers": said}, ensure_ascii=False) + "\n")
        self.draw()

    def draw(self) -> None:
        lines = [json.loads(line) for line in (self.out / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
        said = {(line["stage"], line["step"]): line["answers"] for line in lines}  # the last time counts
        sections = []
        for i, sample in enumerate(self.asked):
            question, truth = _split(sample)
            words = " ".join(message.text for message in question)
            pictures = "".join(f'<img src="{image.data_url()}" alt="">' for image in sample.images)
            rows = "".join(
                f'<tr><td class="step">{html.escape(stage)} {step}</td><td>{html.escape(answers[i])}</td></tr>'
                for (stage, step), answers in said.items()
            )
            sections.append(
                f"<section>{pictures}<div><b>{html.escape(words)}</b><table>{rows}"
                f'<tr class="truth"><td class="step">truth</td><td>{html.escape(truth)}</td></tr></table>'
                "</div></section>"
            )
        page = f'<!doctype html><meta charset="utf-8"><title>Answers</title><style>{STYLE}</style>' + "".join(sections)
        (self.out / "answers.html").write_text(page, encoding="utf-8")


def _split(sample: Sample) -> tuple[list[Message], str]:
    """What is asked, up to the assistant's first turn, and that turn"""
    turn = next((i for i, m in enumerate(sample.messages) if m.role == "assistant"), len(sample.messages))
    return list(sample.messages[:turn]), "".join(m.text for m in sample.messages[turn : turn + 1])


def _answer(family: Family[Any], sample: Sample) -> str:
    try:
        if isinstance(family, Chat):
            return family.reply(_split(sample)[0]).text
        return str(family.caption(sample.images[0]))  # type: ignore[attr-defined]
    except (InputError, IndexError) as error:
        return f"({error})"


def write_card(recipe: Recipe, out: Path) -> None:
    """`model/README.md`: what the model was made of and how, and how its losses fell."""
    rows = []
    for stage in recipe.stages:
        losses = [loss for _, loss in sorted(read_log(out).get(stage.name, {}).items())]
        last = losses[-max(1, len(losses) // 100) :]
        end = sum(last) / len(last) if last else float("nan")
        samples = stage.steps * stage.batch * stage.accumulate
        rows.append(f"| {stage.name} | {stage.objective} | {stage.data} | {stage.steps} | {samples} | {end:.4f} |")
    if (out / "loss.png").exists():
        shutil.copy2(out / "loss.png", out / "model")
    card = f"""# {recipe.name}

Made with panmodal, by the recipe below.

| stage | objective | data | steps | samples | loss at its end |
|---|---|---|---|---|---|
{chr(10).join(rows)}

![The loss of every step](loss.png)

## Recipe

```json
{json.dumps(asdict(recipe), indent=2, ensure_ascii=False)}
```
"""
    (out / "model" / "README.md").write_text(card, encoding="utf-8")
