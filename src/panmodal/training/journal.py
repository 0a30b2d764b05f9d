"""What a run tells of itself: a progress bar, a log of every step, a picture of losses and rates, and TensorBoard's
events."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from panmodal.errors import InputError
from panmodal.training.loop import Step
from panmodal.training.stages import Stage

REDRAW = 30.0  # seconds between pictures
EVENTS = ("loss", "rate", "gradient", "tokens_per_second", "padding", "memory")  # what TensorBoard is told


class Journal:
    """Of one stage: `log.jsonl` and `loss.png` in the run's folder, and the bar on standard error; with
    `tensorboard`, events in `events`, for which InputError is raised if TensorBoard is not there."""

    def __init__(self, out: Path, stage: Stage, quiet: bool = False, tensorboard: bool = False) -> None:
        self.out, self.stage = out, stage
        self.recent: deque[Step] = deque(maxlen=50)
        self.file: IO[str] | None = None
        self.events = _events(out / "events") if tensorboard else None
        self.redraw = time.monotonic() + REDRAW
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=quiet,
        )
        before = read_log(out).get(stage.name, {0: math.nan})  # what a stopped run has done already
        last = max(before)
        self.task = self.bar.add_task(
            stage.name, total=stage.steps, completed=last, loss=before[last], speed="", note=""
        )

    def __enter__(self) -> Self:
        self.file = (self.out / "log.jsonl").open("a", encoding="utf-8")
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        if self.file is not None:
            self.file.close()
        if self.events is not None:
            self.events.close()
        draw_losses(self.out)

    def write(self, step: Step) -> None:
        assert self.file is not None
        self.file.write(json.dumps({"stage": self.stage.name, **step.log()}) + "\n")
        self.file.flush()
        if self.events is not None:
            for name in EVENTS:
                self.events.add_scalar(f"{self.stage.name}/{name}", step.log()[name], step.number)
        self.recent.append(step)
        note = f"{step.skipped} samples skipped" if step.skipped else ""
        self.bar.update(self.task, completed=step.number, loss=step.loss, speed=self._speed(), note=note)
        if time.monotonic() > self.redraw:
            draw_losses(self.out)
            self.redraw = time.monotonic() + REDRAW

    def _speed(self) -> str:
        """As "5,120 tokens/s, 3% padding, 1.2 GB", over the last steps"""
        seconds, tokens = sum(step.seconds for step in self.recent), sum(step.tokens for step in self.recent)
        last = self.recent[-1]
        rate = f"{tokens / seconds:,.0f} tokens/s, {last.padding:.0%} padding"
        if not tokens:
            rate = f"{last.samples * len(self.recent) / seconds:.1f} samples/s"
        return f"{rate}, {last.memory / 1e9:.1f} GB"


def _events(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("tensorboard = true needs TensorBoard: pip install 'panmodal[train]'") from None
    return SummaryWriter(str(folder))


def read_log(out: Path, key: str = "loss") -> dict[str, dict[int, float]]:
    """The loss of every step by stage, or what else its line says; where a stopped run repeated steps, the last time
    counts."""
    losses: dict[str, dict[int, float]] = {}
    if (out / "log.jsonl").exists():
        for line in (out / "log.jsonl").read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that a killed run was writing
                continue
            losses.setdefault(entry["stage"], {})[entry["step"]] = entry[key]
    return losses


def draw_losses(out: Path, width: int = 960, height: int = 480) -> None:
    """Draws `loss.png`: the stages side by side, their losses on one logarithmic scale, smoothed over 1 % of a stage,
    and beneath, in orange, the rates of their first parts on a linear one."""
    curves, rates = [], read_log(out, "rate")
    for name, losses in read_log(out).items():
        values = [v for _, v in sorted(losses.items()) if math.isfinite(v) and v > 0]
        window = max(1, len(values) // 100)
        smooth = [
            sum(values[max(0, i - window) : i + 1]) / len(values[max(0, i - window) : i + 1])
            for i in range(len(values))
        ]
        if len(smooth) > 1:
            curves.append((name, smooth))
    if not curves:
        return
    low = math.log(min(min(c) for _, c in curves))
    high = max(math.log(max(max(c) for _, c in curves)), low + 1e-6)
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    left, right, top, bottom = 70, width - 20, 40, height - 40
    for i in range(5):
        y = bottom - (bottom - top) * i / 4
        pen.line([(left, y), (right, y)], fill=(225, 225, 225))
        pen.text((8, y - 6), f"{math.exp(low + (high - low) * i / 4):.3g}", fill=(90, 90, 90))
    each = (right - left) / len(curves)
    fastest = max(max(rates[name].values()) for name, _ in curves) or 1.0
    for i, (name, curve) in enumerate(curves):
        start = left + i * each
        shares = [rate / fastest for _, rate in sorted(rates[name].items())]
        line = [
            (start + 6 + (each - 12) * j / max(1, len(shares) - 1), bottom - (bottom - top) * share / 4)
            for j, share in enumerate(shares)
        ]
        pen.line(line, fill=(240, 150, 40))
        points = [
            (
                start + 6 + (each - 12) * j / (len(curve) - 1),
                bottom - (bottom - top) * (math.log(v) - low) / (high - low),
            )
            for j, v in enumerate(curve)
        ]
        pen.line(points, fill=(40, 90, 200), width=2)
        pen.text((start + 6, height - 28), f"{name}: {len(curve)} steps, {curve[-1]:.4f}", fill=(40, 40, 40))
    pen.text((left, 14), "loss, logarithmic", fill=(40, 90, 200))
    pen.text((left + 160, 14), f"rate, up to {fastest:.3g}", fill=(240, 150, 40))
    picture.save(out / "loss.png")
