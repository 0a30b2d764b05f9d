"""`panmodal caption`: what pictures show, in words."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import (
    AllowPickle,
    Device,
    Engine,
    Json,
    Parquet,
    Workers,
    collect,
    load_model,
    model_option,
    pictures,
    print_json,
    progress,
)

NAME = "caption"
EXAMPLE = "panmodal caption examples/scene.png --json"
TOGETHER = 32


def run(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders of them, or - for one on standard input.")],
    prompt: Annotated[str, typer.Option(help="What the caption goes on from.")] = "",
    model: str = model_option("tiny/blip"),
    max_tokens: Annotated[int, typer.Option(help="The longest caption, in tokens.")] = 64,
    beams: Annotated[int, typer.Option(help="More than 1: search for the likeliest caption.")] = 1,
    parquet: Parquet = None,
    engine: Engine = None,
    workers: Workers = 1,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Say what pictures show."""
    from panmodal.cli.hint import FOR_CAPTIONS, hint
    from panmodal.inference.collection import Work

    if parquet is not None:
        collect(
            Work("caption", model, {"prompt": prompt, "max_tokens": max_tokens, "beams": beams}, device, allow_pickle),
            inputs,
            parquet,
            engine,
            workers,
            json,
        )
        return
    family = load_model(model, "caption", device, allow_pickle)
    named = list(pictures(inputs))
    with progress("captioning") as update:
        for start in range(0, len(named), TOGETHER):
            some = named[start : start + TOGETHER]
            said = family.caption_all([image for _, image in some], prompt, max_tokens=max_tokens, beams=beams)
            for (name, image), caption in zip(some, said, strict=True):
                if json:
                    print_json({"model": model, "image": name, "caption": caption})
                else:
                    print(caption if len(named) == 1 else f"{name}: {caption}", flush=True)
                hint(model, [image], FOR_CAPTIONS)
            update(start + len(some), len(named))
