"""The training loop: a generator of steps, around which evaluating, logging and saving is plain code.

for step in train(model, data, stage):
    print(step.number, step.loss)
    if step.number % 500 == 0:
        step.save(folder)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.data.readers import Source
from panmodal.data.sample import Batch
from panmodal.errors import InputError, TrainingError
from panmodal.families import Chat, Family
from panmodal.lora import adapters, is_adapter
from panmodal.training.preference import Preference
from panmodal.training.stages import Objective, Stage, parameter_groups
from panmodal.training.state import restore, save
from panmodal.training.stream import Position, batches

PATIENCE = 5  # steps in a row whose loss or gradient may be not finite


@dataclass
class Run:
    """All that a stopped run needs to go on as if it had not stopped."""

    model: nn.Module
    optimiser: torch.optim.AdamW
    position: Position
    average: dict[str, Tensor]  # the weights' moving average, empty if there is none
    number: int = 0


@dataclass(frozen=True)
class Step:
    """What one step did. `loss` is not finite in a step whose update was left out."""

    number: int
    loss: float
    rate: float
    gradient: float
    samples: int
    seconds: float
    run: Run
    told: Mapping[str, float] = field(default_factory=dict)  # what else the objective tells of it

    @property
    def skipped(self) -> int:
        """Samples left out so far because they could not be used."""
        return self.run.position.bad

    def save(self, folder: Path) -> None:
        """Writes the run's state, whole or not at all."""
        save(self.run, folder)

    def log(self) -> dict[str, Any]:
        return {
            "step": self.number,
            "loss": self.loss,
            "rate": self.rate,
            "gradient": self.gradient,
            "samples_per_second": round(self.samples / max(self.seconds, 1e-9), 2),
            "skipped": self.skipped,
            **self.told,
        }


def train(
    family: Family[Any],
    source: Source,
    stage: Stage,
    *,
    seed: int = 0,
    resume: Path | None = None,
    workers: int = 0,
) -> Iterator[Step]:
    """Runs a stage on a family's model, yielding after every step.

    `resume` is a state that `Step.save` wrote: on the same machine the steps that follow are, to the
    last bit, those of a run that was never stopped. `workers` processes make batches. A stage with `lora` leaves the
    model with its adapters, for `save` or `merge`. Raises TrainingError if too many samples are unusable or the loss
    stays not finite.
    """
    if stage.lora is not None:
        if not isinstance(family, Chat):
            raise InputError(f"stage {stage.name!r} has lora, which adapts a language model; {family!r} has none")
        family.adapt(stage.lora)
    model, objective = family.model.train(), stage.learns
    optimiser = torch.optim.AdamW(parameter_groups(model, stage), betas=stage.betas, fused=True)
    if isinstance(family, Chat) and adapters(model):
        family.tuned.update(n for n, p in model.named_parameters() if p.requires_grad and not is_adapter(n))
    average = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad and stage.ema}
    run = Run(model, optimiser, Position(), average)
    if resume is not None:
        restore(run, resume)
    device = family.device
    trained = [p for p in model.parameters() if p.requires_grad]
    autocast = torch.autocast(device.type, torch.bfloat16) if _in_bfloat16(stage, device) else nullcontext()
    failures = 0
    started = time.perf_counter()
    try:
        for made, position in batches(source, family.processor, stage, seed, run.position, workers):
            if run.number >= stage.steps:
                break
            moved = [batch.to(device) for batch in made]
            weights = [objective.weight(batch) for batch in moved]
            total, told = 0.0, dict[str, float]()
            for batch, weight in zip(moved, weights, strict=True):
                with autocast:
                    loss, more = _told(objective, model, batch)
                    loss = loss * (weight / sum(weights))
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
                for name, value in more.items():
                    told[name] = told.get(name, 0.0) + value.item() * weight / sum(weights)
            gradient = nn.utils.clip_grad_norm_(trained, stage.clip_norm).item()
            rate = schedule(stage, run.number)
            if math.isfinite(total) and math.isfinite(gradient):
                failures = 0
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * rate
                optimiser.step()
                _follow(run, stage.ema)
            else:
                failures += 1
                if failures == PATIENCE:
                    raise TrainingError(
                        f"the loss has not been finite for {PATIENCE} steps, the last of them {run.number + 1}; "
                        "lower the rates, or lengthen the warm-up"
                    )
            optimiser.zero_grad()
            run.number += 1
            run.position = position
            now = time.perf_counter()
            peak = optimiser.param_groups[0]["lr"]
            yield Step(run.number, total, peak, gradient, stage.batch * stage.accumulate, now - started, run, told)
            started = time.perf_counter()
    finally:
        for name, parameter in model.named_parameters():
            if run.number >= stage.steps and name in average:
                parameter.data.copy_(average[name])
            parameter.requires_grad_(True)
        model.eval()


def _told(objective: Objective, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The loss, and what else the objective tells of it."""
    if isinstance(objective, Preference):
        return objective.told(model, batch)
    return objective.loss(model, batch), {}


def _in_bfloat16(stage: Stage, device: torch.device) -> bool:
    if stage.precision != "auto":
        return stage.precision == "bfloat16"
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


def schedule(stage: Stage, number: int) -> float:
    """The share of the peak rate at a step: a line up, a cosine down."""
    rising = max(1, round(stage.warmup * stage.steps))
    if number < rising:
        return (number + 1) / rising
    done = (number - rising) / max(1, stage.steps - rising)
    return stage.final + (1 - stage.final) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def _follow(run: Run, decay: float) -> None:
    for name, parameter in run.model.named_parameters():
        if name in run.average:
            run.average[name].lerp_(parameter, 1 - min(decay, (1 + run.number) / (10 + run.number)))
