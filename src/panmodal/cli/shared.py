"""What several commands share: options, inputs, progress and output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.media import Medium
    from panmodal.data.sample import Image
    from panmodal.evaluation import Report
    from panmodal.inference.collection import Work

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, for programs.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read a pickle of plain weights, if there is nothing else.")
]
Parquet = Annotated[
    Path | None,
    typer.Option(help="For big collections: a folder for Parquet files; inputs may be tars and Parquet lists, too."),
]
Engine = Annotated[str | None, typer.Option(help="With --parquet: ray, for many machines or devices.")]
Workers = Annotated[int, typer.Option(min=1, help="With --engine: models that work side by side.")]
Contrast = Annotated[
    float | None,
    typer.Option(min=0, help="Set answers apart from those to the picture in noise, so much (VCD; its authors: 1)."),
]
Noise = Annotated[
    int | None, typer.Option(min=1, max=999, help="With --contrast: how much noise, in steps of diffusion; 500.")
]
Plausible = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="With --contrast: tokens less likely than so much of the likeliest are out; 0.1."),
]
Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, mps.")]


def model_option(default: str) -> Any:
    """`--model` with a command's own default."""
    return typer.Option(
        default, "--model", "-m", help="A built-in model, a folder, owner/name[@revision] on the hub, or openai:NAME."
    )


def contrasting(contrast: float | None, noise: int | None, plausible: float | None) -> dict[str, Any]:
    """The options of `--contrast` that were given."""
    told = {"contrast": contrast, "noise": noise, "plausible": plausible}
    given = {name: value for name, value in told.items() if value is not None}
    if given and not contrast:
        raise InputError("--noise and --plausible are for a contrast; give one by --contrast, as --contrast 1")
    return given


def check_device(device: str) -> None:
    if device != "cpu":
        import torch

        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None


def load_model(name: str, kind: str, device: str, allow_pickle: bool) -> Any:
    """Loads a model and makes sure that it can do what the command is for (`kind`: a verb it has)."""
    from panmodal.families import load

    check_device(device)
    model = load(name, device=device, allow_pickle=allow_pickle)
    if not model.does(kind):
        raise InputError(
            f"{name} is {type(model).__name__}, which does not {kind}; `panmodal models` lists what does what"
        )
    return model


def pictures(places: Iterable[str]) -> Iterator[tuple[str, Image]]:
    """Pictures from files, folders (searched through) and `-` (one picture's bytes on standard
    input), with their names."""
    from panmodal.data.sample import Image

    for name, source in _sources(places, ("image",)):
        yield name, Image(source)


def media(places: Iterable[str], takes: Sequence[str]) -> Iterator[tuple[str, Medium]]:
    """As `pictures`, of all the kinds of files that a model takes."""
    from panmodal.data.sample import as_medium

    for name, source in _sources(places, takes):
        yield name, as_medium(source)


def _sources(places: Iterable[str], takes: Sequence[str]) -> Iterator[tuple[str, Path | bytes]]:
    from panmodal.data.media import media_files

    for place in places:
        if place == "-":
            yield "-", sys.stdin.buffer.read()
            continue
        for path in media_files(Path(place), takes):
            yield str(path), path


def lines(texts: Iterable[str]) -> list[str]:
    """Texts given as arguments; `-` stands for the lines of standard input."""
    found: list[str] = []
    for text in texts:
        found += [line.rstrip("\n") for line in sys.stdin] if text == "-" else [text]
    return found


def print_json(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False), flush=True)


def print_report(report: Report, json: bool) -> None:
    """What `eval` and `score` print."""
    if json:
        print_json(report.to_json())
        return
    whose = f"{report.model} on " if report.model else ""
    print(f"{whose}{report.task}, split {report.split}, {report.examples:,} examples")
    print_metrics(report.metrics, report.intervals)
    if report.unparsed:
        print(f"  {report.unparsed:,} answers could not be read, and count as wrong")


def print_metrics(
    metrics: dict[str, Any], intervals: Mapping[str, tuple[float, float]] = MappingProxyType({}), indent: str = "  "
) -> None:
    """Names and numbers for people, with their intervals; what is in one of them is indented."""
    for name, value in metrics.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            print_metrics(value, indent=indent + "  ")
        else:
            numbers = value if isinstance(value, list) else [value]
            shown = " ".join(f"{n:.4f}" if isinstance(n, float) else str(n) for n in numbers)
            within = "  [{:.4f}, {:.4f}]".format(*intervals[name]) if name in intervals else ""
            print(f"{indent}{name:32} {shown}{within}")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that shows itself after two seconds; call it with (done, total)."""
    import time

    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=total)
    began, shown = time.monotonic(), False

    def update(done: int, of: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - began > 2:
            bar.start()
            shown = True
        bar.update(task, completed=done, total=of)

    try:
        yield update
    finally:
        if shown:
            bar.stop()


def collect(work: Work, inputs: Sequence[str], out: Path, engine: str | None, workers: int, json: bool) -> None:
    """What `--parquet` does; see `inference.collection`."""
    from panmodal.inference.collection import run

    if engine not in (None, "ray"):
        raise InputError(f"unknown engine {engine!r}; there is ray")
    family = load_model(work.model, work.verb, work.device, work.allow_pickle)  # else told before any work
    with progress(f"{work.verb} of a collection") as update:
        told = run(work, inputs, out, engine, workers, update, family)
    if json:
        print_json({"model": work.model, **told})
        return
    print(f"{told['done']:,} of {told['pictures']:,} pictures done now, in {out}")
    for reason, count in told["failed"].items():
        print(f"{count:,} left out: {reason}")
