"""`panmodal train`: runs a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import Device, Json, check_device, print_json

NAME = "train"
EXAMPLE = "panmodal train recipes/tiny/clip.toml --set stages.0.steps=100 --set out=runs/try"


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, a TOML file.")],
    set: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe: key=value; may be given again.")
    ] = None,
    device: Device = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches, besides the one that learns.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run of it left.")] = False,
    json: Json = False,
) -> None:
    """Train a model by a recipe.

    A run that was stopped or killed goes on where it was when the same command is given again. The
    folder that the recipe names gets the model, a log and a picture of the loss. Several processes train together as
    `torchrun --nproc-per-node 2 -m panmodal train RECIPE`.
    """
    from panmodal.training import read_recipe, run_recipe
    from panmodal.training.run import Stopped

    check_device(device)
    read = read_recipe(recipe, set or [])
    lead = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    try:
        family = run_recipe(read, device=device, workers=workers, restart=restart, quiet=json)
    except Stopped as stopped:
        if lead:
            typer.echo(f"panmodal: {stopped}", err=True)
        raise typer.Exit(143) from None
    if not lead:
        return
    folder = Path(read.out) / "model"
    if json:
        print_json({"recipe": str(recipe), "model": str(folder)})
    else:
        print(f"{family!r} is in {folder}; try `panmodal models {folder}`")
