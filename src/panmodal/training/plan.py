"""What a training is going to do, told before it starts: parts, parameters, rates, and the memory that it will need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from panmodal.data.readers import Source
from panmodal.families import Chat, Family
from panmodal.training.stages import Stage, parameter_groups
from panmodal.training.stream import Position, batches

BYTES = 4 + 8  # of a trained parameter: its gradient, and AdamW's two moments


@dataclass(frozen=True)
class StagePlan:
    """Of one stage: how many parameters of each part are trained and at which rates, and the bytes that training needs
    beside the weights, for gradients and optimiser, and for what one batch, the first, keeps for its gradients."""

    name: str
    trained: dict[str, tuple[int, tuple[float, ...]]]
    optimiser: int
    activations: int


@dataclass(frozen=True)
class Plan:
    """`parts` has the number of parameters of each part of the model, `weights` is their size in bytes."""

    parts: dict[str, int]
    weights: int
    stages: tuple[StagePlan, ...]

    @property
    def bytes(self) -> int:
        """What the stage that needs most needs."""
        return self.weights + max(stage.optimiser + stage.activations for stage in self.stages)


def make_plan(family: Family[Any], stages: Sequence[Stage], sources: Sequence[Source], seed: int = 0) -> Plan:
    """Looks at the first batch of every stage, so that a data set that is missing, or does not fit the model, is found
    before hours of training, and leaves the model and the random state as they were."""
    parts: dict[str, int] = {}
    for name, parameter in family.model.named_parameters():
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    weights = sum(p.numel() * p.element_size() for p in family.model.parameters())
    with torch.random.fork_rng():
        planned = tuple(_stage(family, *each, seed) for each in zip(stages, sources, strict=True))
    return Plan(parts, weights, planned)


def _stage(family: Family[Any], stage: Stage, source: Source, seed: int) -> StagePlan:
    model = family.model
    if stage.lora is not None and isinstance(family, Chat):
        family.adapt(replace(stage.lora, base=""))  # which leaves the weights as they are
    rates = {p: group["peak"] for group in parameter_groups(model, stage) for p in group["params"]}
    trained: dict[str, tuple[int, tuple[float, ...]]] = {}
    for name, parameter in model.named_parameters():
        if parameter in rates:
            part = name.partition(".")[0]
            count, before = trained.get(part, (0, ()))
            trained[part] = count + parameter.numel(), tuple(sorted({*before, rates[parameter]}))
    activations = _kept(family, stage, source, seed)
    if stage.lora is not None and isinstance(family, Chat):
        family.merge()  # which changes nothing: they begin as zeros
    model.requires_grad_(True)
    each = BYTES + (4 if stage.ema else 0)
    return StagePlan(stage.name, trained, each * sum(count for count, _ in trained.values()), activations)


def _kept(family: Family[Any], stage: Stage, source: Source, seed: int) -> int:
    """Bytes that the first batch keeps for its gradients, beside the weights"""
    steps = batches(source, family.processor, stage, seed, Position())
    made, _ = next(steps)
    del steps
    own = {p.untyped_storage().data_ptr() for p in family.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = stage.learns.loss(family.model, made[-1].to(family.device))
    del loss
    return sum(kept.values())


def show_plan(plan: Plan, console: Console) -> None:
    """A table of the parts, and of what each stage trains of them at which rate."""
    table = Table("part", box=None, header_style="bold")
    table.add_column("parameters", justify="right")
    for stage in plan.stages:
        table.add_column(stage.name, justify="right")
    for part, count in plan.parts.items():
        table.add_row(part, f"{count:,}", *(_cell(stage, part, count) for stage in plan.stages))
    table.add_row(
        "memory",
        _mb(plan.weights),
        *(_mb(plan.weights + s.optimiser + s.activations) for s in plan.stages),
        style="dim",
    )
    console.print(table)


def _cell(stage: StagePlan, part: str, whole: int) -> str:
    if part not in stage.trained:
        return "frozen"
    count, rates = stage.trained[part]
    at = " and ".join(f"{rate:g}" for rate in rates)
    return at if count == whole else f"{count:,} at {at}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
