"""`panmodal playground`: writes scenes to look at or to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import Json, print_json, progress
from panmodal.errors import InputError, suggest

NAME = "playground"
EXAMPLE = "panmodal playground scenes/ --count 100 --split held-out"


def run(
    out: Annotated[Path, typer.Argument(help="A new folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 100,
    split: Annotated[
        str, typer.Option(help="train, test, or held-out: attribute pairs that training never shows.")
    ] = "train",
    size: Annotated[int, typer.Option(min=16, max=4096, help="The pictures' side, in pixels.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="The first scene's seed; the others follow.")] = 0,
    ask: Annotated[
        str, typer.Option(help="A kind of questions: write pictures and conversations of these alone, in LLaVA's JSON.")
    ] = "",
    json: Json = False,
) -> None:
    """Write scenes: pictures, masks, sounds, depth maps, a JSONL of captions, questions and conversations."""
    from panmodal.playground.export import export, export_llava
    from panmodal.playground.questions import KINDS, MORE_KINDS

    if ask and ask not in KINDS | MORE_KINDS:
        raise InputError(f"unknown kind of questions {ask!r}{suggest(ask, KINDS | MORE_KINDS)}")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"{out} is not empty; name a new folder")
    with progress("writing scenes", count) as update:
        if ask:
            export_llava(out, count, split, size, seed, ask, update)
        else:
            export(out, count, split, size, seed, update)
    if json:
        print_json({"folder": str(out), "scenes": count, "split": split})
    elif ask:
        print(f"{count} conversations in {out}: data.json and pictures/, to train on")
    else:
        print(f"{count} scenes in {out}: data.jsonl, pictures/, masks/, sounds/, depth/, and overview.png to look at")
