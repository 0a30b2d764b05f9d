"""`panmodal models`: what can be loaded."""

from __future__ import annotations

from typing import Annotated

import typer

from panmodal.cli.shared import Json, print_json

NAME = "models"
EXAMPLE = "panmodal models tiny/chat"


def run(
    name: Annotated[str, typer.Argument(help="A model to tell about; without one, all known ones are listed.")] = "",
    json: Json = False,
) -> None:
    """List the models that are built in, and published ones that can be named; or tell about one."""
    from panmodal.checkpoints.hub import BUILT_IN, KNOWN, built_in, locate

    if name:
        card = locate(name) / "README.md"
        from panmodal.families import load

        model = load(name)
        known = ("embed", "classify", "match", "caption", "answer", "reply", "stream", "segment", "segment_everything")
        verbs = [verb for verb in known if model.does(verb)]
        count = sum(p.numel() for p in model.model.parameters())
        if json:
            print_json({"model": name, "family": type(model).__name__, "parameters": count, "verbs": verbs})
            return
        print(f"{name}: {type(model).__name__}, {count:,} parameters; {', '.join(verbs)}")
        if card.is_file():
            print("\n" + card.read_text(encoding="utf-8").strip())
        return
    rows = []
    for own in built_in():
        size = sum(f.stat().st_size for f in (BUILT_IN / own).iterdir()) / 1e6
        rows.append((own, f"built in, {size:.1f} MB: knows the playground"))
    rows += [(known, f"{kind}, from the hub") for known, kind in KNOWN.items()]
    for row in rows:
        print_json({"model": row[0], "what": row[1]}) if json else print(f"{row[0]:44} {row[1]}")
