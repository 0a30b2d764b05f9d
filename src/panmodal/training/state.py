"""The state of a run on disk: crash-safe, checked, and free of pickles."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from panmodal.checkpoints.store import replacing, write_json
from panmodal.errors import CheckpointError
from panmodal.training.stream import Position
from panmodal.training.world import copy_into

if TYPE_CHECKING:
    from panmodal.training.loop import Run

MOMENTS = ("exp_avg", "exp_avg_sq")
WHOLE = "state.safetensors"  # where one process has all of the weights


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """Says so where the disk is full."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = isinstance(error, SafetensorError) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if not full:
            raise
        raise CheckpointError(
            f"cannot write to {folder} ({error}); what was saved there before is whole: make room, and run the same "
            "command to go on"
        ) from error


def save(run: Run, folder: Path) -> None:
    """Writes weights, optimiser, averages, data position and random state; see `replacing`.

    All processes of the run's world take part. Where each holds a share of the weights (FSDP), each writes its own
    (PyTorch's distributed checkpoints, as safetensors), and any number of processes reads them.
    """
    world, tensors = run.world, _tensors(run)
    steps = {n: float(run.optimiser.state[p]["step"]) for n, p in _learned(run).items() if p in run.optimiser.state}
    with replacing(folder) if world.lead else nullcontext() as made:
        fresh = Path(world.gather(str(made))[0])
        if any(isinstance(t, DTensor) for t in tensors.values()):
            from torch.distributed.checkpoint import hf_storage, state_dict_saver

            writer = hf_storage.HuggingFaceStorageWriter(str(fresh), save_distributed=True)
            state_dict_saver.save(_rows(tensors), storage_writer=writer)
        elif world.lead:
            save_file({k: t.contiguous() for k, t in tensors.items()}, fresh / WHOLE)
        world.gather(None)
        if world.lead:
            position = {"taken": run.position.taken, "skipped": run.position.skipped}
            write_json(fresh / "state.json", {"number": run.number, "position": position, "optimiser_steps": steps})
            write_json(fresh / "manifest.json", {f.name: _digest(f) for f in sorted(fresh.iterdir())})
    world.gather(None)


def restore(run: Run, folder: Path) -> None:
    """Puts a saved state back into a run of the same model and stage, of any number of processes."""
    if not whole(folder):
        raise CheckpointError(f"{folder} is not a whole training state; resume from an earlier one")
    state = json.loads((folder / "state.json").read_text())
    for name, parameter in _learned(run).items():
        if name in state["optimiser_steps"]:
            moments = {m: torch.zeros_like(parameter) for m in MOMENTS}
            moments["step"] = torch.tensor(state["optimiser_steps"][name], device=parameter.device)
            run.optimiser.state[parameter] = moments
    tensors = _tensors(run)
    if (folder / WHOLE).exists():
        with safe_open(folder / WHOLE, framework="pt") as stored:
            for name, tensor in tensors.items():  # in one order, for they may be shared out
                if name != "random/cuda" or name in stored.keys():  # noqa: SIM118 (a file, no mapping)
                    copy_into(tensor, stored.get_tensor(name))
    else:
        from torch.distributed.checkpoint import hf_storage, state_dict_loader

        reader = hf_storage.HuggingFaceStorageReader(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*load in a single process")
            state_dict_loader.load(_rows(tensors), storage_reader=reader, no_dist=run.world.size == 1)
    torch.set_rng_state(tensors["random"])
    if "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], next(run.model.parameters()).device)
    run.number = state["number"]
    run.position = Position(state["position"]["taken"], Counter(state["position"]["skipped"]))


def _learned(run: Run) -> dict[str, nn.Parameter]:
    return {name: p for name, p in run.model.named_parameters() if p.requires_grad}


def _tensors(run: Run) -> dict[str, Tensor]:
    """All that a state holds, by name: those of the run itself, to be read or written."""
    names = dict(run.model.named_parameters())
    tensors: dict[str, Tensor] = {f"weight/{name}": p.detach() for name, p in names.items()}
    tensors |= {f"average/{name}": t for name, t in run.average.items()}
    for name, parameter in names.items():
        moments = run.optimiser.state.get(parameter)
        if moments:
            tensors |= {f"{m}/{name}": moments[m] for m in MOMENTS}
    tensors["random"] = torch.get_rng_state()
    if (device := next(run.model.parameters()).device).type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def _rows(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Single numbers as rows of one, for shares of files are found by where in a tensor they begin."""
    return {name: t.view(1) if t.ndim == 0 else t for name, t in tensors.items()}


def whole(folder: Path) -> bool:
    """Whether every file of a state is there as it was written."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return all(_digest(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
