"""`panmodal compare`: what one result has over another, answer by answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from panmodal.cli.shared import Json, print_json

if TYPE_CHECKING:
    from panmodal.evaluation.compare import Comparison, Flip

NAME = "compare"
EXAMPLE = "panmodal compare results/before results/after"
SHOWN = 5  # flips of each kind, to people


def run(
    first: Annotated[Path, typer.Argument(help="A folder that `panmodal eval --out` left, or a result in it.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same tasks.")],
    json: Json = False,
) -> None:
    """Compare two results: a paired test for each task, and the examples whose answers changed."""
    from panmodal.evaluation.compare import compare
    from panmodal.evaluation.results import read_results

    sides = [[result for _, result in read_results([place])] for place in (first, second)]
    for found in compare(*sides):
        if json:
            print_json(found.to_json())
        else:
            _print(found)


def _print(found: Comparison) -> None:
    print(f"{found.task}, split {found.split}, {found.examples:,} examples: {' -> '.join(found.models)}")
    low, high = found.interval
    test = "" if found.p is None else f", p = {found.p:.3g} (McNemar's exact test)"
    print(f"  {found.metric} {found.scores[0]:.4f} -> {found.scores[1]:.4f}")
    print(f"  difference {found.difference:+.4f} [{low:+.4f}, {high:+.4f}]{test}")
    _print_flips("better", found.gained)
    _print_flips("worse", found.lost)


def _print_flips(how: str, flips: list[Flip]) -> None:
    print(f"  {len(flips):,} answers are {how}")
    for flip in flips[:SHOWN]:
        before, after = flip.answers
        print(f"    {flip.id}: {flip.question!r} {before!r} -> {after!r}; the truth is {flip.truth!r}")
