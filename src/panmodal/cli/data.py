"""`panmodal data`: a data set looked at before a training."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panmodal.cli.shared import AllowPickle, Device, Json, load_model, print_json, progress
from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.processor import Processor
    from panmodal.training.check import Report

NAME = "data"
EXAMPLE = "panmodal data check my.jsonl --model tiny/chat"

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    help="Look at a data set before training on it: check what is in it, show it, or think about it.",
)

File = Annotated[
    str, typer.Argument(help="A file, a folder, a pattern of shards ('cc-{000..012}.tar'), or playground/….")
]
Model = Annotated[str, typer.Option("--model", "-m", help="The model to train, which is read without its weights.")]


@app.command("check", epilog=f"Example: `{EXAMPLE} --bad bad.jsonl`")
def check_data(
    file: File,
    model: Model = "tiny/chat",
    bad: Annotated[Path | None, typer.Option("--bad", help="Write the bad lines here, with reasons, as JSONL.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Look at the first of them alone.")] = None,
    json: Json = False,
) -> None:
    """Read a data set as a training would, and tell what that could not use.

    Ends with status 1 if a sample is bad. Nothing is changed.
    """
    from panmodal.training.check import Look, check
    from panmodal.training.run import open_source

    processor, source = _processor(model), open_source(file)
    out = bad.open("w", encoding="utf-8") if bad else None

    def told(look: Look) -> None:
        if out is not None:
            out.write(dumps(look.to_json(source), ensure_ascii=False, default=_short) + "\n")

    try:
        with progress("reading") as update:
            report = check(source, processor, count, told, update)
    finally:
        if out is not None:
            out.close()
    if json:
        print_json({"file": file, "model": model, **report.to_json()})
    else:
        _print(report)
    if report.bad:
        raise typer.Exit(1)


@app.command("show", epilog="Example: `panmodal data show my.jsonl --count 12 --out sheet.html`")
def show(
    file: File,
    model: Model = "tiny/chat",
    count: Annotated[int, typer.Option(min=1, help="How many samples, from the first to the last.")] = 12,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("sheet.html"),
    json: Json = False,
) -> None:
    """Draw samples as the model will see them: their text with the trained tokens marked, pictures preprocessed."""
    from panmodal.training.run import open_source
    from panmodal.training.sheet import sheet

    if out.suffix != ".html":
        raise InputError(f"--out names an .html file, not {out}")
    source = open_source(file)
    page = sheet(source, _processor(model), count, f"{file} as {model} sees it")
    out.write_text(page, encoding="utf-8")
    shown = page.count("<article>")
    print_json({"file": file, "model": model, "samples": shown, "page": str(out)}) if json else print(
        f"{shown} samples in {out}"
    )


@app.command("rationales", epilog="Example: `panmodal data rationales my.jsonl --model tiny/chat --out thought.jsonl`")
def write_rationales(
    file: File,
    out: Annotated[Path, typer.Option(help="The file to write, JSONL.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model that thinks before it answers.")] = "tiny/chat",
    first: Annotated[str, typer.Option(help="Ask this about the pictures before; its answer is kept, too.")] = "",
    count: Annotated[int | None, typer.Option(min=1, help="Ask the first of them alone.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of thoughts and answer together.")] = 256,
    device: Device = "cpu",
    allow_pickle: AllowPickle = False,
    json: Json = False,
) -> None:
    """Write the samples that a model gets right, with its own thoughts before the answers, to be tuned on."""
    from panmodal.families import Conversational
    from panmodal.inference.rationales import rationales
    from panmodal.training.run import open_source

    source, family = open_source(file), load_model(model, "model", device, allow_pickle)
    if not isinstance(family, Conversational):
        raise InputError(f"{model} does not converse")
    with progress("thinking") as update, out.open("w", encoding="utf-8") as lines:
        kept, total = rationales(family, source, lines, count, update, first, max_tokens=max_tokens)
    told = {"file": file, "model": model, "samples": total, "right": kept, "out": str(out)}
    print_json(told) if json else print(
        f"{kept:,} of {total:,} samples were thought about and right; they are in {out}"
    )


def _processor(model: str) -> Processor:
    from panmodal.families import outline

    processor: Processor = outline(model).processor
    return processor


def _short(value: Any) -> str:
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else f"<{type(value).__name__}>"


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from panmodal.training.check import DUPLICATED, FAULTS

    table = Table("", "samples", "the first of them")
    for fault, words in {**FAULTS, DUPLICATED: "a picture is another's copy (no fault)"}.items():
        number = report.faults[fault]
        style = "dim" if not number else "yellow" if fault == DUPLICATED else "red"
        table.add_row(words, f"{number:,}", report.first.get(fault, ""), style=style)
    lengths = ", ".join(f"{name} {value:,}" for name, value in report.lengths().items()) or "none could be counted"
    over = sum(length > report.context for length in report.tokens)
    console = Console()
    console.print(table)
    console.print(
        f"{report.samples:,} samples, {report.bad:,} of them bad; {report.pictures:,} different pictures\n"
        f"tokens: {lengths}; {over:,} over the {report.context:,} that the model reads, "
        f"where {report.truncated_answers:,} answers would be cut",
        highlight=False,
    )
