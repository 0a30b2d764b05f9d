"""`panmodal match`: how well texts fit a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, lines, load_model, model_option, pictures, print_json
from panmodal.errors import InputError

NAME = "match"
EXAMPLE = 'panmodal match examples/scene.png "two red circles and a blue star" "a pink star"'


def run(
    image: Annotated[str, typer.Argument(help="A picture, a folder of them, or - for one on standard input.")],
    texts: Annotated[list[str], typer.Argument(help="Texts; - reads lines.")],
    model: str = model_option("tiny/blip"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Say how likely each text is to fit a picture, each judged on its own in sight of it."""
    from panmodal.cli.hint import FOR_MATCHING, hint

    if image == "-" and "-" in texts:
        raise InputError("standard input is either the picture or the texts")
    family = load_model(model, "match", device, allow_pickle)
    said, shown = lines(texts), list(pictures([image]))
    for name, picture in shown:
        odds = family.match(picture, said)
        if json:
            print_json({"model": model, "image": name, "matches": dict(zip(said, odds, strict=True))})
        else:
            if len(shown) > 1:
                print(name)
            for text, share in zip(said, odds, strict=True):
                print(f"{share:7.1%}  {text}")
        hint(model, [picture], FOR_MATCHING)
