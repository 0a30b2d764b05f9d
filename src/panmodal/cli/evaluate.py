"""`panmodal eval`: a model's score on tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from panmodal.cli.shared import (
    AllowPickle,
    Contrast,
    Device,
    Json,
    Noise,
    Plausible,
    contrasting,
    load_model,
    print_report,
    progress,
)
from panmodal.errors import InputError

NAME = "eval"
EXAMPLE = "panmodal eval tiny/chat playground/vqa --split held-out --json"


def run(
    model: Annotated[
        str, typer.Argument(help="A built-in model, a folder, owner/name[@revision] on the hub, or openai:NAME.")
    ],
    tasks: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK...",
            help="hallucination; playground/ and vqa, retrieval, zero-shot, match, caption, segment, …; or a "
            "published benchmark: mme, pope, textvqa, mmmu, …",
        ),
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="By default the usual one; of the playground test, or held-out: pairs that training never showed."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A published benchmark's data, or, of several, a folder for each by its name.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="How many examples; by default the task's own number.")
    ] = None,
    pictures: Annotated[
        str, typer.Option(help="own; or swapped or none, to see what answers owe to the picture.")
    ] = "own",
    shots: Annotated[
        int | None,
        typer.Option(min=0, help="Examples with their answers before each question."),
    ] = None,
    retriever: Annotated[
        str, typer.Option(help="Which examples: random, balanced, or those likest by image, text or mixed.")
    ] = "random",
    shots_split: Annotated[
        str | None, typer.Option(help="Of which split the examples are; by default the one to train on.")
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="Whose vectors tell the likest; of photographs a hub's CLIP.")
    ] = "tiny/clip",
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder in which answers and results are kept, and from which a stopped evaluation goes on."
        ),
    ] = None,
    cot: Annotated[
        str | None,
        typer.Option(
            help="Reason first: thoughts (the model's own), zero-shot, few-shot, two-stage, adaptive, least-to-most."
        ),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help='With --cot: what asks for reasons, by default "Let\'s think step by step."')
    ] = None,
    votes: Annotated[
        int | None, typer.Option(min=1, help="With --cot: samples whose most common answer counts.")
    ] = None,
    contrast: Contrast = None,
    noise: Noise = None,
    plausible: Plausible = None,
    correct: Annotated[
        str | None,
        typer.Option(help="A model that checks what is said of pictures; what does not hold is taken back."),
    ] = None,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Measure a model on tasks."""
    from panmodal.evaluation import PUBLISHED, evaluate
    from panmodal.evaluation.tasks import check_task
    from panmodal.prompting.correction import Correction, PlaygroundCaptions, Prompted
    from panmodal.prompting.reasoning import Reasoning

    told: dict[str, Any] = {"trigger": trigger, "votes": votes, "shots": shots}
    given = {name: value for name, value in told.items() if value is not None}
    if cot is None and (trigger or votes):
        raise InputError("--trigger and --votes are for a chain of thought; name one by --cot")
    reasoning = Reasoning(cot, **given) if cot is not None else None
    decoding = contrasting(contrast, noise, plausible)
    family = load_model(model, "model", device, allow_pickle)
    checker = load_model(correct, "reply", device, allow_pickle) if correct is not None else None
    for task in tasks:
        check_task(family, task)
    published = [task for task in tasks if task in PUBLISHED]
    several = data is not None and len(published) > 1
    for task in tasks:
        place = data if task in published or not published else None
        with progress(task) as update:
            report = evaluate(
                family,
                task,
                split=split,
                count=count,
                pictures=pictures,
                shots=shots,
                retriever=retriever,
                shots_split=shots_split,
                embedder=embedder,
                data=place / task if several and place else place,
                out=out,
                cot=reasoning,
                decoding=decoding,
                correction=checker and Correction(checker, Prompted(checker) if place else PlaygroundCaptions()),
                progress=update,
            )
        print_report(report, json)
