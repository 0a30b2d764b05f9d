"""`panmodal bench`: side-by-side measurements against other libraries."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import Json, print_json
from panmodal.errors import InputError

NAME = "bench"
EXAMPLE = "panmodal bench --only import"


def run(
    only: Annotated[list[str] | None, typer.Option("--only", help="One benchmark by name; may be given again.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side runs, in turn.")] = 5,
    json: Json = False,
) -> None:
    """Measure this library beside its peers, in turn in one run, and write benchmarks/RESULTS.md.

    Needs a clone of the repository and `pip install -e ".[bench]"`.
    """
    import sys
    from importlib import import_module
    from pathlib import Path

    sys.path.insert(0, str(Path.cwd()))
    try:
        bench = import_module("benchmarks")
    except ModuleNotFoundError:
        raise InputError("the benchmarks are in the repository: run this in a clone of it") from None
    results = bench.run(only or [], rounds)
    if json:
        for result in results:
            print_json(result)
