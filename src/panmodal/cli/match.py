"""`panmodal match`: how well texts fit a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, lines, load_model, model_option, pictures, print_json
from panmodal.errors import InputError

NAME = "match"
EXAMPLE = 'panmodal match cat.jpg "a cat on a sofa" "a dog on a sofa"'


def run(
    image: Annotated[str, typer.Argument(help="A picture, a folder of them, or - for one on standard input.")],
    texts: Annotated[list[str], typer.Argument(help="Texts; - reads lines.")],
    model: str = model_option("Salesforce/blip-itm-base-coco"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Tell how likely each text is to fit a picture, each judged on its own."""
    if image == "-" and "-" in texts:
        raise InputError("standard input is either the picture or the texts")
    from panmodal.cli.hint import FOR_MATCHING, hint

    family = load_model(model, "match", device, allow_pickle)
    said = lines(texts)
    for name, shown in pictures([image]):
        odds = family.match(shown, said)
        hint(model, [shown], FOR_MATCHING)
        if json:
            print_json({"model": model, "image": name, "matches": dict(zip(said, odds, strict=True))})
            continue
        for text, share in zip(said, odds, strict=True):
            print(f"{share:6.1%}  {text}")
