"""`panmodal classify`: which of some labels fits a picture."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, media, model_option, print_json
from panmodal.errors import InputError

NAME = "classify"
EXAMPLE = 'panmodal classify examples/scene.png --labels "red circle, blue star, green cross"'


def run(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders of them, or - for one on standard input.")],
    labels: Annotated[str, typer.Option(help="Labels, separated by commas. A classifier has its own.")] = "",
    top: Annotated[int, typer.Option(min=1, help="How many labels to print.")] = 5,
    model: str = model_option("tiny/clip"),
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Say which of some labels fits a picture, or a sound, by the model's own measure of likeness."""
    from panmodal.cli.hint import FOR_EMBEDDING, hint
    from panmodal.data.sample import Image
    from panmodal.families import Binding, Contrastive

    family = load_model(model, "classify", device, allow_pickle)
    wanted = [label.strip() for label in labels.split(",") if label.strip()]
    by_labels = isinstance(family, Contrastive | Binding)
    if by_labels and not wanted:
        raise InputError('say which labels to choose from: --labels "cat, dog"')
    many = list(media(inputs, family.takes))
    for name, item in many:
        odds = family.classify(item, wanted) if by_labels else family.classify(item)
        best = sorted(odds.items(), key=lambda item: -item[1])[:top]
        if json:
            print_json({item.kind: name, "labels": dict(best)})
        else:
            if len(many) > 1:
                print(name)
            for label, share in best:
                print(f"{share:7.1%}  {'█' * round(30 * share):30}  {label}")
        hint(model, [item] if isinstance(item, Image) else [], FOR_EMBEDDING)
