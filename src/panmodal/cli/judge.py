"""`panmodal judge`: answers of models, judged by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, print_json, print_metrics, progress
from panmodal.errors import InputError

NAME = "judge"
EXAMPLE = "panmodal judge gpt4.jsonl mine.jsonl --questions questions.jsonl --model openai:gpt-4o"


def run(
    answers: Annotated[
        list[Path], typer.Argument(help="A .jsonl of question_id and text for each model, named after its file.")
    ],
    questions: Annotated[Path, typer.Option(help="A .jsonl of question_id, text, and image and category, if any.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The judge: openai:NAME, or a model that runs here.")],
    mode: Annotated[
        str,
        typer.Option(help="relative, each beside the first file's; single, each alone; pairwise, all pairs."),
    ] = "relative",
    context: Annotated[
        Path | None, typer.Option(help="What is in the pictures, in words: a .jsonl of image and caption.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of the pictures, for a judge who sees them.")] = None,
    verdicts: Annotated[
        Path, typer.Option(help="Where verdicts are kept; those that are there are not asked for again.")
    ] = Path("verdicts.jsonl"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Have a language model judge answers: scores from 1 to 10, or which of two is better, and Elo ratings.

    Files are as LLaVA-Bench has them.
    """
    from panmodal.evaluation.judge import judge
    from panmodal.evaluation.questions import read_answers, read_questions

    asked = read_questions(questions, context, images)
    given = {file.stem: read_answers(file) for file in answers}
    if len(given) < len(answers):
        raise InputError("two files of answers have one name, after which models are called; rename one")
    family = load_model(model, "stream", device, allow_pickle)
    with progress("judging") as update:
        found = judge(family, asked, given, mode, verdicts, update)
    if json:
        print_json(found.to_json())
        return
    unparsed = f", {found.unparsed} of which could not be read" if found.unparsed else ""
    print(f"{found.judge}, {found.mode}: {found.questions} questions, {found.verdicts} verdicts{unparsed}")
    print_metrics(found.metrics)
