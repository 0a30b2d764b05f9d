"""The training loop: a generator of steps, around which evaluating, logging and saving is plain code.

for step in train(model, data, stage):
    print(step.number, step.loss)
    if step.number % 500 == 0:
        step.save(folder)
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
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
from panmodal.training.hybrid import Answering, Hybrid
from panmodal.training.preference import Preference
from panmodal.training.stages import Objective, Stage, parameter_groups
from panmodal.training.state import restore, save
from panmodal.training.stream import Position, batches, sample_number
from panmodal.training.world import ALONE, World, prepared

PATIENCE = 5  # steps in a row whose loss or gradient may be not finite
NAMED = 16  # samples at most, where a step's are named


@dataclass
class Run:
    """All that a stopped run needs to go on as if it had not stopped."""

    model: nn.Module
    optimiser: torch.optim.AdamW
    position: Position
    average: dict[str, Tensor]  # the weights' moving average, empty if there is none
    number: int = 0
    world: World = ALONE


@dataclass(frozen=True)
class Step:
    """What one step did. `loss` is not finite in a step whose update was left out."""

    number: int
    loss: float
    rate: float
    gradient: float
    samples: int
    tokens: int  # read, of texts and conversations, without padding
    padding: float  # the share of it in what the model went through
    memory: int  # bytes, the most that the process, or on a GPU its tensors, have taken so far
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
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
            "padding": round(self.padding, 4),
            "memory": self.memory,
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
    world: World = ALONE,
) -> Iterator[Step]:
    """Runs a stage on a family's model, yielding after every step.

    `resume` is a state that `Step.save` wrote: on the same machine the steps that follow are, to the
    last bit, those of a run that was never stopped. `workers` processes make batches. The processes of a
    `world` share the samples of each step among them. A stage with `lora` leaves the model with its adapters, for
    `save` or `merge`. Raises TrainingError if too many samples are unusable or the loss stays not finite.
    """
    _check_shares(stage, world)
    if stage.lora is not None:
        if not isinstance(family, Chat):
            raise InputError(f"stage {stage.name!r} has lora, which adapts a language model; {family!r} has none")
        family.adapt(stage.lora)
    model, objective = family.model.train(), stage.learns
    parameter_groups(model, stage)  # freezes what is not learned, before DDP and FSDP look at it
    learner = world.learner(model)
    optimiser = torch.optim.AdamW(parameter_groups(model, stage), betas=stage.betas, fused=True)
    if isinstance(family, Chat) and adapters(model):
        family.tuned.update(n for n, p in model.named_parameters() if p.requires_grad and not is_adapter(n))
    average = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad and stage.ema}
    run = Run(model, optimiser, Position(), average, world=world)
    if resume is not None:
        restore(run, resume)
    device = family.device
    tricks = ExitStack()
    trained = [p for p in model.parameters() if p.requires_grad]
    autocast = torch.autocast(device.type, torch.bfloat16) if _in_bfloat16(stage, device) else nullcontext()
    failures = 0
    started = time.perf_counter()
    try:
        tricks.enter_context(prepared(model, stage.checkpointing, stage.compile))
        for made, position in batches(source, family.processor, stage, seed, run.position, workers, world):
            if run.number >= stage.steps:
                break
            moved = [batch.to(device) for batch in made]
            weights = [objective.weight(batch) for batch in moved]
            counts = (sum(weights), sum(batch.tokens for batch in made), sum(b.ids.numel() for b in made))
            every, tokens, places = (sum(column) for column in zip(*world.gather(counts), strict=True))
            if not every:
                continue  # no process could use a sample
            total, told = 0.0, dict[str, float]()
            for i, (batch, weight) in enumerate(zip(moved, weights, strict=True), 1):
                share = weight * world.size / every  # of which DDP and FSDP take the mean
                with world.held_back(learner, last=i == len(moved)):
                    with autocast:
                        loss, more = learner(_telling(objective), batch)
                    (loss * share).backward()
                total += loss.item() * share / world.size
                for name, value in more.items():
                    told[name] = told.get(name, 0.0) + value.item() * weight / every
            parts = world.gather((total, told))
            total = sum(part for part, _ in parts)
            told = {name: sum(more[name] for _, more in parts) for name in told}
            gradient = world.clip(trained, stage.clip_norm)
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
                    raise TrainingError(_not_finite(run.number + 1, source, stage, seed, position))
            optimiser.zero_grad()
            run.number += 1
            run.position = position
            now = time.perf_counter()
            peak = optimiser.param_groups[0]["lr"]
            yield Step(
                number=run.number,
                loss=total,
                rate=peak,
                gradient=gradient,
                samples=stage.batch * stage.accumulate,
                tokens=tokens,
                padding=1 - tokens / max(1, places),
                memory=peak_memory(device),
                seconds=now - started,
                run=run,
                told=told,
            )
            started = time.perf_counter()
    finally:
        tricks.close()
        for name, parameter in model.named_parameters():
            if run.number >= stage.steps and name in average:
                parameter.data.copy_(average[name])
            parameter.requires_grad_(True)
        model.eval()


def _telling(objective: Objective) -> Callable[[Any, Batch], tuple[Tensor, Mapping[str, Tensor]]]:
    """What makes the loss, and what else the objective tells of it."""
    if isinstance(objective, Preference):
        return objective.told
    return lambda model, batch: (objective.loss(model, batch), {})


def _check_shares(stage: Stage, world: World) -> None:
    if world.size > 1 and world.parallel == "fsdp" and isinstance(stage.learns, Hybrid | Answering):
        raise InputError(f"stage {stage.name!r}: {stage.objective!r} does not run under fsdp; take parallel = 'ddp'")
    if stage.batch % world.size:
        raise InputError(
            f"stage {stage.name!r}: batch is {stage.batch}; it must be a multiple of the {world.size} processes"
        )


def _not_finite(number: int, source: Source, stage: Stage, seed: int, position: Position) -> str:
    size = stage.batch * stage.accumulate
    numbers = [sample_number(source, seed, place) for place in range(position.taken - size, position.taken)]
    named = ", ".join(map(str, numbers[:NAMED])) + (f" and {size - NAMED} more" if size > NAMED else "")
    return (
        f"the loss has not been finite for {PATIENCE} steps, the last of them {number}, of the samples {named} of "
        f"{stage.data or 'the data'}, counted from 0; the weights are as they were before. Lower the rates, lengthen "
        "the warm-up, or look at these samples"
    )


def _in_bfloat16(stage: Stage, device: torch.device) -> bool:
    if stage.precision != "auto":
        return stage.precision == "bfloat16"
    return device.type == "cuda" or (device.type == "cpu" and torch.cpu._is_avx512_bf16_supported())


def peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
