"""`panmodal embed`: vectors of pictures, texts and, with ImageBind, sounds and videos."""

from __future__ import annotations

from pathlib import Path
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
    lines,
    load_model,
    media,
    model_option,
    print_json,
    progress,
)
from panmodal.errors import InputError

NAME = "embed"
EXAMPLE = 'panmodal embed pictures/ --text "a red circle" --out vectors.npy'
TOGETHER = 64


def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures (sounds, videos), folders of them, or - for one on standard input."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", "-t", help="A text; may be given again; - reads lines.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the vectors to a .npy file, one row each.")] = None,
    model: str = model_option("tiny/clip"),
    parquet: Parquet = None,
    engine: Engine = None,
    workers: Workers = 1,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Embed pictures, texts and other media in one space: unit vectors, whose products are cosines."""
    import numpy as np

    from panmodal.data.media import Medium
    from panmodal.inference.collection import Work

    if parquet is not None:
        collect(Work("embed", model, {}, device, allow_pickle), inputs or [], parquet, engine, workers, json)
        return
    family = load_model(model, "embed", device, allow_pickle)
    if out is not None and out.suffix != ".npy":
        raise InputError(f"--out writes .npy files, not {out}")
    named: list[tuple[str, str | Medium]] = [*media(inputs or [], family.takes), *((t, t) for t in lines(text or []))]
    if not named:
        raise InputError("give pictures, folders or --text to embed")
    rows = []
    with progress("embedding") as update:
        for start in range(0, len(named), TOGETHER):
            some = named[start : start + TOGETHER]
            for (name, item), vector in zip(some, family.embed([item for _, item in some]), strict=True):
                rows.append(vector.numpy())
                if json:
                    kind = item.kind if isinstance(item, Medium) else "text"
                    print_json({kind: name, "embedding": vector.tolist()})
            update(start + len(some), len(named))
    if out is not None:
        np.save(out, np.stack(rows))
    if not json:
        for (name, _), row in zip(named, rows, strict=True):
            head = "  ".join(f"{x:+.3f}" for x in row[:4])
            print(f"{name}: {len(row)} numbers  {head}  …")
