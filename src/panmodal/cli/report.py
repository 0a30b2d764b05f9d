"""`panmodal report`: results as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panmodal.cli.shared import Json, print_json

NAME = "report"
EXAMPLE = "panmodal report results/* --out report.html"


def run(
    results: Annotated[list[Path], typer.Argument(help="Folders that `panmodal eval --out` left, or results in them.")],
    out: Annotated[Path, typer.Option(help="Where the page is written.")] = Path("report.html"),
    json: Json = False,
) -> None:
    """Show results on one page: a table, bars, curves over shots, and answers with their pictures."""
    from panmodal.evaluation.page import page
    from panmodal.evaluation.results import read_results, replace_file

    found = read_results(results)
    replace_file(out, page(found).encode("utf-8", "backslashreplace"))
    if json:
        print_json({"page": str(out), "results": len(found)})
    else:
        print(f"{len(found)} results in {out}")
