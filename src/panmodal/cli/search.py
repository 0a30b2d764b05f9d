"""`panmodal search`: what in a folder is most like a text, a picture or a sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, model_option, print_json, progress
from panmodal.errors import InputError

NAME = "search"
EXAMPLE = 'panmodal search pictures/ "two blue stars" --top 3'


def run(
    folder: Annotated[Path, typer.Argument(help="The folder to search through.")],
    query: Annotated[str, typer.Argument(help="A text, or the path of a picture, a sound or a video.")],
    top: Annotated[int, typer.Option(min=1, help="How many to print.")] = 5,
    model: str = model_option("tiny/clip"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Find the pictures, or sounds and videos where a model takes them, that are most like a text or a file.

    Embeddings are kept, by content and model, in the user's cache folder, so that only new files are
    embedded the next time.
    """
    from panmodal.data.media import media_files
    from panmodal.data.sample import as_medium
    from panmodal.inference.gallery import Gallery

    family = load_model(model, "embed", device, allow_pickle)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    gallery = Gallery(family)
    with progress("embedding pictures") as update:
        skipped = gallery.add(media_files(folder, family.takes), update)
    found = gallery.search(as_medium(Path(query)) if Path(query).is_file() else query, top)
    for reason in skipped:
        typer.echo(f"skipped: {reason}", err=True)
    for path, score in found:
        print_json({as_medium(path).kind: str(path), "score": score}) if json else print(f"{score:+.3f}  {path}")
