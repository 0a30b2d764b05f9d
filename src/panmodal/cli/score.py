"""`panmodal score`: what somebody's answers to a published benchmark reach, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import Json, print_report

NAME = "score"
EXAMPLE = "panmodal score pope answers.jsonl --data pope/"


def run(
    task: Annotated[str, typer.Argument(help="A published benchmark: mme, pope, textvqa, vqav2, mmmu, …")],
    predictions: Annotated[
        Path, typer.Argument(help="The answers: LLaVA's lines of question_id and text, or the official form.")
    ],
    data: Annotated[Path, typer.Option(help="The folder of the benchmark's data, as it was published.")],
    split: Annotated[str | None, typer.Option(help="A split of the data; by default the usual one.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Score those that have an answer, if not all do.")] = False,
    json: Json = False,
) -> None:
    """Score answers to a published benchmark by its official rules."""
    from panmodal.evaluation import score

    print_report(score(task, predictions, data, split=split, partial=partial), json)
