"""The processes that learn together, as torchrun starts them: one loss, one state, whatever their number.

A step is the same samples with any number of processes, and its loss the mean over all that is learned in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from panmodal.cache import Source
from panmodal.errors import TrainingError
from panmodal.transformer import Block, Transformer

T = TypeVar("T")
Parallel = Literal["ddp", "fsdp"]


class Learner(nn.Module):
    """A model and what it learns by as one module: DDP and FSDP act on what happens in a module's `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[Any, Any], Tensor], batch: Any) -> Tensor:
        return loss(self.model, batch)


@dataclass(frozen=True)
class World:
    """This process among those that learn together. Every method but `learner` does nothing where it is alone."""

    rank: int = 0
    size: int = 1
    parallel: Parallel = "ddp"
    _sharded: list[tuple[nn.Module, Learner]] = field(default_factory=list)

    @property
    def lead(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def gather(self, thing: T) -> list[T]:
        """What each process has, in their order; all must call it."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing)
        return things

    def learner(self, model: nn.Module) -> nn.Module:
        """What the loss goes through. DDP keeps the model in every process, FSDP a share of it (`fully_shard`, by
        blocks), in which its parameters become DTensors for good."""
        if self.size == 1:
            return Learner(model)
        if self.parallel == "ddp":  # text alone uses no image encoder, and a part may be trained by some batches only
            replica = DistributedDataParallel(Learner(model), find_unused_parameters=True)
            replica.broadcast_buffers = False  # those that there are, a quantised base, do not change
            return replica
        for known, learner in self._sharded:
            if known is model:
                return learner
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        learner = Learner(model)
        mesh = init_device_mesh(next(model.parameters()).device.type, (self.size,))
        numbers = {p for p in model.parameters() if p.ndim == 0}  # which cannot be shared out
        for block in blocks(model):
            fully_shard(block, mesh=mesh, ignored_params=numbers)
            register_fsdp_forward_method(block, "first")
        shared = {p for p in model.parameters() if isinstance(p, DTensor)}  # gates stand beside their blocks, too
        fully_shard(learner, mesh=mesh, ignored_params=numbers | shared)
        self._sharded.append((model, learner))
        return learner

    def held_back(self, learner: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """In which DDP keeps its gradients to itself, until a step's last batch."""
        if isinstance(learner, DistributedDataParallel) and not last:
            return learner.no_sync()
        return nullcontext()

    def clip(self, trained: Sequence[nn.Parameter], limit: float) -> float:
        """Scales gradients down to a norm of `limit`; returns the norm that they had."""
        shares = [p for p in trained if isinstance(p, DTensor)]
        if not shares:
            return nn.utils.clip_grad_norm_(trained, limit).item()
        numbers = [p for p in trained if not isinstance(p, DTensor)]
        for number in numbers:  # of which FSDP knows nothing
            number.grad = torch.zeros_like(number) if number.grad is None else number.grad
            dist.all_reduce(number.grad)
            number.grad /= self.size
        parts = [nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]) for some in (shares, numbers)]
        norms = [part.full_tensor() if isinstance(part, DTensor) else part for part in parts]
        norm = math.hypot(*(float(n) for n in norms))
        for some in (shares, numbers):
            nn.utils.clip_grads_with_norm_(some, limit, torch.tensor(norm, device=norms[0].device))
        return norm

    @contextmanager
    def whole(self, model: nn.Module) -> Iterator[None]:
        """In which each process has all of a model's weights, as plain tensors; all must enter it."""
        places: list[tuple[nn.Module, str, Any]] = [
            (m, n, p) for m in model.modules() for n, p in m._parameters.items() if isinstance(p, DTensor)
        ]
        once = dict.fromkeys(p for _, _, p in places)  # tied ones, too; in the same order everywhere
        full = {p: nn.Parameter(p.full_tensor().detach(), requires_grad=False) for p in once}
        try:
            for module, name, parameter in places:
                module._parameters[name] = full[parameter]
            yield
        finally:
            for module, name, parameter in places:
                module._parameters[name] = parameter
        self.gather(None)  # nobody goes on before all is done


ALONE = World()


@contextmanager
def joined(parallel: Parallel, device: str) -> Iterator[tuple[World, str]]:
    """The processes that torchrun started, as one world, and this one's device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield World(dist.get_rank(), size, parallel), device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(
            "another process of the run has ended, and says why; the same command goes on from the last state"
        ) from error
    finally:
        dist.destroy_process_group()


def together() -> bool:
    """Whether this process learns with others."""
    return dist.is_available() and dist.is_initialized()


def gathered(rows: Tensor, alike: bool = True) -> Tensor:
    """The rows [n, ...] of all processes, those of the first before those of the second: [N, ...]. Where a row has
    fewer columns than others have it is filled up with -1.

    If all processes make the same loss of them (`alike`), gradients go to this one's rows, times N / n: a process's
    loss counts as much as it has rows, and what its own rows do not get of the others' losses they get of its own. If
    each makes of them a part of the loss (`mean_of_all`), its rows get what the parts of all have for them.
    """
    if not together():
        return rows
    out: Tensor = _Gathered.apply(rows, alike)  # type: ignore[no-untyped-call]
    return out


def mean_of_all(total: Tensor, count: int, rows: int) -> Tensor:
    """Of a mean over things that processes share, this one's part: the sum `total` of its `count` things, so weighted
    that with each process's loss counting as much as it has `rows` the mean is that over all."""
    if not together():
        return total / max(1, count)
    of_all = torch.tensor([count, rows], dtype=torch.float32, device=total.device)
    dist.all_reduce(of_all)
    return total / of_all[0].clamp(min=1) * of_all[1] / max(1, rows)


def own_part(count: int, device: torch.device) -> Tensor:
    """Which of things that all processes know are this one's to go through."""
    if not together():
        return torch.arange(count, device=device)
    return torch.arange(dist.get_rank(), count, dist.get_world_size(), device=device)


def drawn(draw: Callable[..., Tensor], rows: Tensor) -> Tensor:
    """Random numbers, one for each of `rows` [n, ...]: those that one process draws for the rows of all, of these this
    one's."""
    if not together():
        return draw(rows.shape, device=rows.device)
    counts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(counts, len(rows))
    first = sum(counts[: dist.get_rank()])
    return draw((sum(counts), *rows.shape[1:]), device=rows.device)[first : first + len(rows)]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, alike: bool) -> Tensor:
        shapes: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(shapes, tuple(rows.shape))
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        room = [n for size, most in zip(rows.shape[::-1], largest[::-1], strict=True) for n in (0, most - size)]
        filled = F.pad(rows, room, value=-1).contiguous()
        found = [torch.empty_like(filled) for _ in shapes]
        dist.all_gather(found, filled)
        first = sum(shape[0] for shape in shapes[: dist.get_rank()])
        ctx.own = slice(first, first + len(rows))
        out = torch.cat([some[: shape[0]] for some, shape in zip(found, shapes, strict=True)])
        ctx.times = len(out) / max(1, len(rows)) if alike else None
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        if ctx.times is None:
            gradient = gradient.contiguous().clone()
            dist.all_reduce(gradient)
            return gradient[ctx.own], None
        return gradient[ctx.own] * ctx.times, None


def dealt(lengths: Sequence[int], rank: int, size: int) -> list[int]:
    """Which of a step's samples a process takes: as many as each other, and about as long, for the longest are dealt
    out first, to and fro. Those of one length keep their order."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    rounds = [order[i : i + size] for i in range(0, len(order), size)]
    return [r[place] for i, r in enumerate(rounds) if (place := rank if i % 2 == 0 else size - 1 - rank) < len(r)]


def blocks(model: nn.Module) -> list[Block]:
    """Those of all its transformers."""
    return [b for part in model.modules() if isinstance(part, Transformer) for b in part.blocks if isinstance(b, Block)]


@contextmanager
def prepared(model: nn.Module, checkpointing: bool, compiled: bool) -> Iterator[None]:
    """In which blocks keep no activations (Chen et al., 2016), or are compiled. Those that look at a `Source` keep
    theirs, for it is made once for all that look at it."""
    found = blocks(model) if checkpointing or compiled else []
    try:
        for block in found:
            if checkpointing:
                block.forward = partial(_again, block.forward)  # type: ignore[method-assign]
            if compiled:
                block.compile(dynamic=True)
        yield
    finally:
        for block in found:
            block.__dict__.pop("forward", None)
            block._compiled_call_impl = None


def _again(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    if any(isinstance(arg, Source) for arg in args):
        return forward(*args)
    out: Tensor = checkpoint(forward, *args, use_reentrant=False)
    return out


def copy_into(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into one that may be shared out."""
    if isinstance(target, DTensor):
        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
    target.copy_(value)
