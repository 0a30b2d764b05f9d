"""`panmodal match`: whether texts fit a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, lines, load_model, model_option, pictures, print_json
from panmodal.errors import InputError

NAME = "match"
EXAMPLE = 'panmodal match examples/scene.png "two red circles and a blue star" "a green cross"'


def run(
    image: Annotated[str, typer.Argument(help="A picture, or - for one on standard input.")],
    texts: Annotated[list[str], typer.Argument(help="What may fit it; - reads lines.")],
    model: str = model_option("tiny/blip"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Say how likely each of some texts is to fit a picture, each judged on its own in sight of it."""
    from panmodal.cli.hint import FOR_MATCHING, hint

    family = load_model(model, "match", device, allow_pickle)
    shown = list(pictures([image]))
    if len(shown) != 1:
        raise InputError(f"match judges one picture, and {image} holds {len(shown)}")
    said = lines(texts)
    for text, share in zip(said, family.match(shown[0][1], said), strict=True):
        print_json({"image": image, "text": text, "match": share}) if json else print(f"{share:7.1%}  {text}")
    hint(model, [shown[0][1]], FOR_MATCHING)
