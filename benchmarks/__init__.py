"""Side-by-side measurements. `panmodal bench` runs them and writes RESULTS.md.

Each benchmark times ours and a peer's side in turn, each in a process of its own, and reports
medians and their ratio.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RESULTS = Path(__file__).parent / "RESULTS.md"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Result:
    """Medians over the rounds, in seconds; `ratio` is that of ours to the peer's, `floor` (what both
    pay for other things) taken from each; `share` is how much of the machine's ceiling ours reaches; `peaks` is
    the most memory that each side's process has held, in MB."""

    benchmark: str
    what: str
    ours_s: float
    peer_s: float
    floor_s: float
    ratio: float
    aim: float
    share: float | None
    peaks: tuple[float, float] | None
    rounds: int


# name -> (what it is, our command, the peer's, what both pay for, the ratio aimed at)
START = ("-c", "pass")
TORCH = ("-c", "import torch")
PEER = ("-c", "import transformers; transformers.CLIPModel, transformers.LlavaForConditionalGeneration")
COMMANDS: dict[str, tuple[str, Sequence[str], Sequence[str], Sequence[str], float]] = {
    "import": (
        "`import panmodal` and its loader, against transformers and its CLIP and LLaVA classes; apart from torch",
        ("-c", "import panmodal; panmodal.load"),
        PEER,
        TORCH,
        0.3,
    ),
    "help": (
        "`panmodal --help`, against importing transformers; apart from the interpreter's start",
        ("-m", "panmodal", "--help"),
        PEER,
        START,
        0.3,
    ),
}
# name -> what each of its measurements is, and the ratio aimed at
MODELS: dict[str, dict[str, tuple[str, float]]] = {
    "embed": {"s": ("CLIP ViT-B/32: one picture from a JPEG file of 640 x 480 embedded", 1.0)},
    "caption": {"s": ("BLIP base: one of 32 pictures captioned in 20 words, from JPEG files of 640 x 480", 1 / 1.5)},
    "chat": {
        "first": ("LLaVA, ViT-B/16 and 24 x 896: first token, 196 image tokens + 32 of text", 0.9),
        "token": ("LLaVA: each further token, from short copies of the weights", 1 / 1.5),
        "second": ("LLaVA: first token of a second question about the same picture", 0.15),
    },
    "blip2": {
        "first": ("BLIP-2, ViT-B/16, Q-Former of 32 and OPT of 24 x 1024: first token, 32 of text", 1 / 1.3),
        "token": ("BLIP-2: each further token, from short copies of the weights", 1 / 1.3),
    },
    "flamingo": {
        "first": (
            "Flamingo (IDEFICS), ViT-B/16 and 24 x 1024, a gate every 4: first token, 2 pictures, 32 of text",
            1 / 1.3,
        ),
        "token": ("Flamingo: each further token, from short copies of the weights", 1 / 1.3),
    },
    "segment": {
        "encode": ("SAM ViT-B: one picture from a JPEG file of 640 x 480 encoded", 0.9),
        "click": ("SAM: three masks of a click, after encoding", 0.6),
        "everything": ("SAM: everything, by a grid of 16 x 16 clicks", 0.7),
    },
}
# name -> what is done to a thousand tokens, our side and the other, and the ratio aimed at
TRAINING = {
    "train": (
        "A thousand tokens trained on, of mixed lengths, packed; against transformers' Trainer, which pads",
        "ours",
        "trainer",
        1 / 1.7,
    ),
    "train-trl": (
        "A thousand tokens trained on, the same, against TRL's SFTTrainer, which packs",
        "ours",
        "trl",
        1 / 1.2,
    ),
    "load": (
        "A thousand tokens loaded, pictures decoded, packed; against being trained on by tiny/chat",
        "loading",
        "learning",
        1 / 5,
    ),
}
# name -> what is scored, and the ratio aimed at
SCORING = {
    "cider": ("CIDEr of 5,000 pictures, five references each, from sentences; against pycocoevalcap with Java", 1 / 5),
}
# name -> what is answered, and the ratio aimed at
ANSWERS = {
    "pope": (
        "One of POPE's questions, six about a picture, by the LLaVA above; against prompts gone through whole",
        1 / 2,
    ),
    "batches": (
        "One of 1,000 questions of playground/vqa, answered by tiny/chat in batches; against one by one",
        1 / 4,
    ),
}


def run(only: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Runs the named benchmarks, or all, and writes RESULTS.md."""
    kinds = {
        **dict.fromkeys(COMMANDS, _commands),
        **dict.fromkeys(MODELS, _models),
        **dict.fromkeys(TRAINING, _training),
        **dict.fromkeys(SCORING, _scoring),
        **dict.fromkeys(ANSWERS, _answers),
    }
    known = list(kinds)
    unknown = sorted(set(only) - set(known))
    if unknown:
        from panmodal.errors import InputError

        raise InputError(f"unknown benchmark {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [name for name in known if not only or name in only]
    results: list[Result] = []
    for name in chosen:
        results += kinds[name](name, rounds)
        _write(results)  # what is measured is kept, whatever comes
    return [asdict(r) for r in results]


def _commands(name: str, rounds: int) -> Iterator[Result]:
    what, ours, theirs, floor, aim = COMMANDS[name]
    times = [[_seconds(command) for command in (ours, theirs, floor)] for _ in range(rounds + 1)][1:]
    a, b, base = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median((t[0] - t[2]) / (t[1] - t[2]) for t in times)
    yield Result(name, what, a, b, base, ratio, aim, None, None, rounds)


def _seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - began


def _models(name: str, rounds: int) -> Iterator[Result]:
    from benchmarks.checkpoints import write
    from benchmarks.models import THREADS, ceilings, torch, work

    with TemporaryDirectory() as folder:
        write(name, Path(folder))
        sides = [_Side(name, side, folder) for side in ("ours", "peer")]
        times = [[side.round() for side in sides] for _ in range(rounds)]
        for side in sides:
            side.close()
    assert all(abs(a.get("found", 1) / b.get("found", 1) - 1) < 0.02 for a, b in times), "one side found more"
    peaks = max(t[0]["peak"] for t in times), max(t[1]["peak"] for t in times)
    torch.set_num_threads(THREADS)
    most, done = ceilings(), work()
    bound = {"s": done.get(name, 0.0) / most["flops"]}
    if name == "chat":
        bound |= {"first": done["prompt"] / most["flops"], "token": done["token"] / most["bytes"]}
    for key, (what, aim) in MODELS[name].items():
        a, b = (statistics.median(t[i][key] for t in times) for i in (0, 1))
        ratio = statistics.median(ours[key] / theirs[key] for ours, theirs in times)
        share = bound[key] / a if key in bound else None
        yield Result(f"{name}-{key}" if key != "s" else name, what, a, b, 0.0, ratio, aim, share, peaks, rounds)


def _training(name: str, rounds: int) -> Iterator[Result]:
    from benchmarks.training import write

    with TemporaryDirectory() as folder:
        write(Path(folder))
        found = [[_alone("training", side, folder) for side in TRAINING[name][1:3]] for _ in range(rounds)]
    for ours, theirs in found if name == "train" else ():  # the same steps
        apart = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
        assert apart < 2e-3, f"losses are {apart} apart"
    times = [[1000 / side["tokens_per_second"] for side in both] for both in found]
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in times)
    peaks = max(o["peak_mb"] for o, _ in found), max(t["peak_mb"] for _, t in found)
    what, *_, aim = TRAINING[name]
    yield Result(name, what, a, b, 0.0, ratio, aim, None, peaks, rounds)


def _scoring(name: str, rounds: int) -> Iterator[Result]:
    found = [[_alone("captions", side) for side in ("ours", "peer")] for _ in range(rounds)]
    assert all(abs(a["cider"] - b["cider"]) < 1e-9 for a, b in found), "the sides' figures differ"
    a, b = (statistics.median(both[i]["s"] for both in found) for i in (0, 1))
    ratio = statistics.median(ours["s"] / theirs["s"] for ours, theirs in found)
    peaks = max(o["peak_mb"] for o, _ in found), max(t["peak_mb"] for _, t in found)
    what, aim = SCORING[name]
    yield Result(name, what, a, b, 0.0, ratio, aim, None, peaks, rounds)


def _answers(name: str, rounds: int) -> Iterator[Result]:
    from benchmarks.answers import prepare

    with TemporaryDirectory() as folder:
        prepare(name, Path(folder))
        found = [[_alone("answers", name, side, folder) for side in ("ours", "peer")] for _ in range(rounds)]
    assert all(ours["answers"] == theirs["answers"] for ours, theirs in found), "the sides' answers differ"
    a, b = (statistics.median(both[i]["s"] for both in found) for i in (0, 1))
    ratio = statistics.median(ours["s"] / theirs["s"] for ours, theirs in found)
    peaks = max(o["peak_mb"] for o, _ in found), max(t["peak_mb"] for _, t in found)
    what, aim = ANSWERS[name]
    yield Result(name, what, a, b, 0.0, ratio, aim, None, peaks, rounds)


def _alone(module: str, *arguments: str) -> Any:
    """What a side prints that runs in a process of its own"""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT).stdout.splitlines()[-1])


class _Side:
    """A process that holds one side's model and times a round when asked."""

    def __init__(self, task: str, side: str, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.models", task, side, folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        self._line()

    def round(self) -> dict[str, float]:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        times: dict[str, float] = json.loads(self._line())
        return times

    def close(self) -> None:
        self.process.communicate()

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side failed: run it alone to see why: {' '.join(self.process.args[1:])}")  # type: ignore[index]
        return line


HEAD = """# Results

Written by `panmodal bench` on {cores} cores; the peer is transformers, or as a row says. Sides run in turn, each in a
process of its own; seconds are medians. `ratio` is the median of the rounds' (ours - floor) / (peer - floor): below 1,
ours is quicker.
`ceiling` is the share that ours reaches of the machine's float32 product rate or, for further tokens, of its memory
bandwidth; both are measured in the same run. Of CLIP's, 80% are aimed at. Short copies of weights are float16, or,
where the CPU multiplies it, bfloat16, and then first tokens are made from them, too (`quicken`). `MB` is the most
memory that each side's process held, over all that it measures. A benchmark that is run again by itself (`--only`)
replaces its rows alone.

open_clip is not among the peers: it needs torchvision, whose published wheels do not load beside this torch.

| benchmark | ours, s | peer, s | floor, s | ratio | aim | reached | ceiling | MB, ours / peer | rounds |
|---|---|---|---|---|---|---|---|---|---|
"""


def _write(results: Sequence[Result]) -> None:
    """Rows in the order of the benchmarks; those that were not run stay as they were."""
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in RESULTS.read_text().splitlines() if "|" in line}
    for r in results:
        figures = [f"{value:.3f}" for value in (r.ours_s, r.peer_s, r.floor_s)] + [f"{r.ratio:.2f}", f"{r.aim:.2f}"]
        reached = "yes" if r.ratio <= r.aim else f"no: {r.ratio / r.aim:.2f} of the aim"
        share = "" if r.share is None else f"{r.share:.0%}"
        peaks = "" if r.peaks is None else " / ".join(f"{peak:.0f}" for peak in r.peaks)
        rows[r.what] = f"| {r.what} | {' | '.join(figures)} | {reached} | {share} | {peaks} | {r.rounds} |"
    known = [what for what, *_ in COMMANDS.values()]
    known += [what for measured in MODELS.values() for what, _ in measured.values()]
    known += [what for what, *_ in (*TRAINING.values(), *SCORING.values(), *ANSWERS.values())]
    lines = [rows[what] for what in known if what in rows]
    RESULTS.write_text(HEAD.format(cores=os.cpu_count()) + "\n".join(lines) + "\n", encoding="utf-8")
