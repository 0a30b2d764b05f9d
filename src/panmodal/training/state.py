"""The state of a run on disk: crash-safe, checked, and free of pickles."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from panmodal.checkpoints.store import replacing, write_json
from panmodal.errors import CheckpointError
from panmodal.training.stream import Position

if TYPE_CHECKING:
    from panmodal.training.loop import Run

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(run: Run, folder: Path) -> None:
    """Writes weights, optimiser, averages, data position and random state; see `replacing`."""
    names = dict(run.model.named_parameters())
    tensors = {f"weight/{name}": p.detach() for name, p in names.items()}
    tensors |= {f"average/{name}": t for name, t in run.average.items()}
    steps = {}
    for name, parameter in names.items():
        moments = run.optimiser.state.get(parameter)
        if moments:
            steps[name] = float(moments["step"])
            tensors |= {f"{m}/{name}": moments[m] for m in MOMENTS}
    tensors["random"] = torch.get_rng_state()
    if (device := next(run.model.parameters()).device).type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    with replacing(folder) as fresh:
        save_file({k: t.contiguous() for k, t in tensors.items()}, fresh / "state.safetensors")
        position = {"taken": run.position.taken, "skipped": run.position.skipped}
        write_json(fresh / "state.json", {"number": run.number, "position": position, "optimiser_steps": steps})
        files = ("state.safetensors", "state.json")
        write_json(fresh / "manifest.json", {name: _digest(fresh / name) for name in files})


def restore(run: Run, folder: Path) -> None:
    """Puts a saved state back into a run of the same model and stage."""
    if not whole(folder):
        raise CheckpointError(f"{folder} is not a whole training state; resume from an earlier one")
    tensors = load_file(folder / "state.safetensors")
    state = json.loads((folder / "state.json").read_text())
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            parameter.copy_(tensors[f"weight/{name}"])
            if name in state["optimiser_steps"]:
                moments = {m: tensors[f"{m}/{name}"] for m in MOMENTS}
                moments["step"] = torch.tensor(state["optimiser_steps"][name])
                run.optimiser.state[parameter] = {m: t.to(parameter.device) for m, t in moments.items()}
        for name, average in run.average.items():
            average.copy_(tensors[f"average/{name}"])
    torch.set_rng_state(tensors["random"])
    if (device := next(run.model.parameters()).device).type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
    run.number = state["number"]
    run.position = Position(state["position"]["taken"], Counter(state["position"]["skipped"]))


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
