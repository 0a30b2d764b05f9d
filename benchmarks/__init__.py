"""Side-by-side measurements. `panmodal bench` runs them and writes RESULTS.md.

Each benchmark times our command and a peer's in turn, each in a process of its own, and reports
medians and their ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "RESULTS.md"

# name -> (what it is, our command, the peer's, what both pay for torch alone)
START = ("-c", "pass")
TORCH = ("-c", "import torch")
PEER = ("-c", "import transformers; transformers.CLIPModel, transformers.LlavaForConditionalGeneration")
BENCHMARKS: dict[str, tuple[str, Sequence[str], Sequence[str], Sequence[str]]] = {
    "import": (
        "`import panmodal` and its loader, against transformers and its CLIP and LLaVA classes; apart from torch",
        ("-c", "import panmodal; panmodal.load"),
        PEER,
        TORCH,
    ),
    "help": (
        "`panmodal --help`, against importing transformers; apart from the interpreter's start",
        ("-m", "panmodal", "--help"),
        PEER,
        START,
    ),
}


def run(only: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Runs the named benchmarks, or all, and writes RESULTS.md; seconds are medians over the rounds."""
    unknown = sorted(set(only) - BENCHMARKS.keys())
    if unknown:
        from panmodal.errors import InputError

        raise InputError(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    results = []
    for name, (what, ours, theirs, floor) in BENCHMARKS.items():
        if only and name not in only:
            continue
        times = [[_seconds(command) for command in (ours, theirs, floor)] for _ in range(rounds + 1)][1:]
        a, b, base = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median((t[0] - t[2]) / (t[1] - t[2]) for t in times)
        results.append(
            {
                "benchmark": name,
                "what": what,
                "ours_s": a,
                "peer_s": b,
                "floor_s": base,
                "ratio": ratio,
                "rounds": rounds,
            }
        )
    _write(results)
    return results


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    return time.perf_counter() - began


def _write(results: Sequence[dict[str, Any]]) -> None:
    lines = [
        "# Results",
        "",
        f"Written by `panmodal bench` on {os.cpu_count()} cores.",
        "Sides run in turn, each in a process of its own; seconds are medians.",
        "`ratio` is the median of the rounds' (ours - floor) / (peer - floor): below 1, ours is quicker.",
        "",
        "| benchmark | ours, s | peer, s | floor, s | ratio | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        figures = [f"{r[key]:.2f}" for key in ("ours_s", "peer_s", "floor_s", "ratio")]
        lines.append(f"| {r['what']} | {' | '.join(figures)} | {r['rounds']} |")
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
