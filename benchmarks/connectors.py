"""The connector study: the same tower, language model, data and steps with every connector, in one table.

    python -m benchmarks.connectors

trains each by recipes/tiny/connectors.toml (some ten minutes of a core a connector), asks it 1,400 held-out questions,
and writes docs/connectors.md. What is in runs/connectors already is not trained again. Times are of the processor, on
one thread, so that what else the machine does matters little.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import panmodal as pm
from panmodal.checkpoints.store import write_json
from panmodal.playground import make_scene, render
from panmodal.training import read_recipe, run_recipe

ROOT = Path(__file__).parents[1]
RECIPE, PAGE = ROOT / "recipes" / "tiny" / "connectors.toml", ROOT / "docs" / "connectors.md"
CONNECTORS: dict[str, dict[str, Any]] = {  # sizes for a model 128 wide, and as many tokens where there is a choice
    "linear": {},
    "mlp": {},
    "qformer": {"queries": 36, "depth": 2, "heads": 4},
    "resampler": {"latents": 36, "depth": 2, "heads": 4, "head_dim": 32},
    "gated": {"latents": 36, "depth": 2, "heads": 4, "head_dim": 32},
    "pixel_shuffle": {},
    "token_merging": {},
    "abstractor": {},
    "adapter": {"layers": 5, "prompts": 36, "heads": 4, "head_dim": 32},
}
OUT = Path("runs/connectors")
COUNT, ASKED = 1400, 100  # questions for the accuracy, and for the time of a first token


@dataclass(frozen=True)
class Row:
    connector: str
    tokens: int  # among the words, or looked at beside them
    parameters: int  # of what is new
    training_s: float
    accuracy: float
    weakest: str


def study(kinds: Sequence[str], changes: Sequence[str] = (), count: int = COUNT) -> list[tuple[Row, float]]:
    """Rows, each with the milliseconds to a first token"""
    rows = [_row(kind, CONNECTORS[kind], changes, count) for kind in kinds]
    return list(zip(rows, _first_tokens(kinds), strict=True))


def _row(kind: str, options: dict[str, Any], changes: Sequence[str], count: int) -> Row:
    crossed = kind in ("gated", "adapter")
    table = ", ".join(f"{key} = {value!r}".replace("'", '"') for key, value in {"kind": kind, **options}.items())
    told = [f"model.connector={{ {table} }}", f"name=study/{kind}", f"out={OUT / kind}", *changes]
    if crossed:  # whose new parts have other names
        new_rates = "resampler = 1e-3, gates = 1e-3"
        told += [
            f"stages.0.rates={{ {new_rates} }}",
            f"stages.1.rates={{ {new_rates}, encoder = 1e-4, language = 3e-4 }}",
        ]
    recipe = read_recipe(RECIPE, told)
    done = Path(recipe.out) / "row.json"
    if done.is_file():
        return Row(**json.loads(done.read_text()))
    shutil.rmtree(recipe.out, ignore_errors=True)  # what stopped half way would look cheap
    began = time.process_time()
    family = run_recipe(recipe)
    training_s = time.process_time() - began
    new = (family.model.resampler, family.model.gates) if crossed else (family.model.connector,)
    tokens = options.get("latents", options.get("prompts")) if crossed else family.processor.image_vectors
    result = pm.evaluate(family, "playground/vqa", split="held-out", count=count)
    kinds = result.metrics["by_kind"]
    weakest = min(kinds, key=kinds.get)
    row = Row(
        kind, tokens, sum(p.numel() for part in new for p in part.parameters()), training_s,
        result.metrics["accuracy"], f"{weakest} {100 * kinds[weakest]:.0f} %",
    )  # fmt: skip
    write_json(done, asdict(row))
    return row


def _first_tokens(kinds: Sequence[str]) -> list[float]:
    """All by turns, picture by picture"""
    families: dict[str, Any] = {kind: pm.load(OUT / kind / "model") for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(ASKED + 1):
        asked = [pm.user(pm.Image(render(make_scene(seed, "test"))), "How many circles are there?")]
        for kind, family in families.items():
            began = time.process_time()
            family.reply(asked, max_tokens=1)
            times[kind].append(1000 * (time.process_time() - began))
    return [median(times[kind][1:]) for kind in kinds]


def write(rows: Sequence[tuple[Row, float]]) -> None:
    lines = [
        "# Connectors compared",
        "",
        "Written by `python -m benchmarks.connectors`: tiny/clip's tower, a new connector and tiny/chat's language",
        "model, trained by recipes/tiny/connectors.toml, each on the same data for as many steps, and asked 1,400",
        "questions about scenes of held-out pairs of colour and shape. Vectors stand among the words; those of `gated`",
        "and `adapter` are looked at beside them. Times are of one core; the first token is of a new picture.",
        "",
        "| connector | vectors | new parameters | training, s | first token, ms | accuracy | weakest kind |",
        "|---|---|---|---|---|---|---|",
    ]
    for r, first_ms in sorted(rows, key=lambda row: -row[0].accuracy):
        lines.append(
            f"| {r.connector} | {r.tokens} | {r.parameters:,} | {r.training_s:.0f} | {first_ms:.1f} | "
            f"{100 * r.accuracy:.1f} % | {r.weakest} |"
        )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(study(sys.argv[1:] or list(CONNECTORS)))
