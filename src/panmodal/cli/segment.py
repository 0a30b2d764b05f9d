"""`panmodal segment`: masks of what points and boxes mean in a picture, or of everything in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
)
from panmodal.errors import InputError

NAME = "segment"
EXAMPLE = "panmodal segment examples/scene.png --point 30,40 --out masks/"


def run(
    image: Annotated[
        str, typer.Argument(help="A picture, or - for one on standard input; with --parquet, a folder, tar or list.")
    ],
    point: Annotated[
        list[str] | None, typer.Option("--point", "-p", help="X,Y on the thing, in pixels; may be given again.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option("--background", help="X,Y beside the thing; may be given again.")
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option("--box", help="X0,Y0,X1,Y1 around a thing; may be given again for another.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Find all things in the picture.")] = False,
    crop_layers: Annotated[
        int, typer.Option(min=0, max=4, help="With --everything: look at 4, 16, … crops, too, for small things.")
    ] = 0,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("masks"),
    model: str = model_option("tiny/sam"),
    parquet: Parquet = None,
    engine: Engine = None,
    workers: Workers = 1,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Cut things out of a picture: by points on them, by a box around them, or all that there are.

    Writes each mask as a black and white PNG, and `overlay.png`, the picture with masks tinted. A single point may
    mean a thing or a part of it and has three masks, the likeliest first, which the overlay shows.
    """
    from panmodal.cli.hint import FOR_SEGMENTING, hint
    from panmodal.data.masks import overlay, to_picture, to_rle
    from panmodal.generators.everything import boxes_around
    from panmodal.inference.collection import Work

    points = [*_numbers("--point", point, 2), *_numbers("--background", background, 2)]
    labels, boxes = [1] * len(point or ()) + [0] * len(background or ()), _numbers("--box", box, 4)
    if not everything and not points and not boxes:
        raise InputError("there is no prompt: give --point X,Y or --box X0,Y0,X1,Y1, or --everything")
    if everything and (points or boxes):
        raise InputError("--everything goes without points and boxes")
    if parquet is not None:
        if not everything:
            raise InputError("--parquet is for --everything in each picture")
        collect(
            Work("segment", model, {"crop_layers": crop_layers}, device, allow_pickle),
            [image],
            parquet,
            engine,
            workers,
            json,
        )
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the masks")
    ((name, picture), *others) = pictures([image])
    if others:
        raise InputError(f"{image} holds several pictures; segment takes one")
    family = load_model(model, "segment", device, allow_pickle)
    if everything:
        segments = family.segment_everything(picture, crop_layers=crop_layers)
        masks, scores = [s.mask for s in segments], [s.score for s in segments]
    else:
        answer = family.segment(picture, points, labels, boxes)
        order = range(len(boxes)) if len(boxes) > 1 else answer.scores.argsort(descending=True).tolist()
        masks, scores = [answer.masks[i] for i in order], [float(answer.scores[i]) for i in order]
    out.mkdir(parents=True, exist_ok=True)
    told: list[dict[str, Any]] = []
    for i, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        file = out / f"{i:03d}.png"
        to_picture(mask).save(file)
        (around,) = boxes_around(mask[None]).tolist()
        told.append({"file": str(file), "score": score, "area": int(mask.sum()), "box": around, "rle": to_rle(mask)})
    shown = masks if everything or boxes else masks[:1]
    overlay(picture.pixels, shown).save(out / "overlay.png")
    if json:
        print_json({"image": name, "masks": told, "overlay": str(out / "overlay.png")})
    else:
        for one in told:
            place = ",".join(map(str, one["box"]))
            print(f"{one['file']}: score {one['score']:.3f}, {one['area']:,} pixels, box {place}")
        print(f"{len(told)} masks; {out / 'overlay.png'} shows {len(shown)}")
    hint(model, [picture], FOR_SEGMENTING)


def _numbers(option: str, given: list[str] | None, count: int) -> list[tuple[float, ...]]:
    """`30,40` -> (30.0, 40.0)"""
    found = []
    for text in given or []:
        try:
            numbers = tuple(map(float, text.split(",")))
        except ValueError:
            numbers = ()
        if len(numbers) != count:
            raise InputError(f"{option} takes {count} numbers with commas between them, not {text!r}")
        found.append(numbers)
    return found
