"""`panmodal eval`: a model's score on a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, print_report, progress

NAME = "eval"
EXAMPLE = "panmodal eval tiny/chat playground/vqa --split held-out --json"


def run(
    model: Annotated[
        str, typer.Argument(help="A built-in model, a folder, owner/name[@revision] on the hub, or openai:NAME.")
    ],
    task: Annotated[
        str,
        typer.Argument(
            help="playground/ and vqa, retrieval, zero-shot, match, caption, new-words, segment, …; or a published "
            "benchmark: mme, pope, textvqa, mmmu, …"
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="By default the usual one; of the playground test, or held-out: pairs that training never showed."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder of a published benchmark's data.")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many examples; by default the task's own number.")
    ] = None,
    pictures: Annotated[
        str, typer.Option(help="own; or swapped or none, to see what answers owe to the picture.")
    ] = "own",
    shots: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt, for playground/new-words and domain-mix.")
    ] = None,
    retriever: Annotated[
        str, typer.Option(help="Which examples: random, balanced, or those likest by image, text or mixed.")
    ] = "random",
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Measure a model on a task."""
    from panmodal.evaluation import evaluate

    family = load_model(model, "model", device, allow_pickle)
    with progress(task) as update:
        report = evaluate(
            family,
            task,
            split=split,
            count=count,
            pictures=pictures,
            shots=shots,
            retriever=retriever,
            data=data,
            progress=update,
        )
    print_report(report, json)
