"""Kills a tiny training again and again, and looks whether it ends as if nobody had.

python -m benchmarks.kills                # 30 kills of one process
python -m benchmarks.kills --ranks 2 5    # 5 of one of two, as torchrun would go on
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

RECIPE = """
name = "killed"
out = "{out}"
save_every = 3

[model]
tokenizer = "playground"
chat_template = "{{% for m in messages %}}{{{{ m['content'] }}}}</s>{{% endfor %}}"
[model.config]
model_type = "llama"
vocab_size = 344
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 4
max_position_embeddings = 512

[[stages]]
name = "words"
objective = "text"
data = "playground/text"
rates = {{ all = 1e-3 }}
steps = {steps}
batch = 4
pack = 64
"""
STEPS = 7  # that a process makes before it is killed, at most


def train(recipe: str, rank: int, ranks: int, port: int) -> None:
    """What one process does"""
    import torch

    from panmodal.training import run_recipe

    torch.set_num_threads(1)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_recipe(recipe, quiet=True)


def free_port() -> int:
    """Where processes may meet"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(recipe: Path, ranks: int) -> list[BaseProcess]:
    context = get_context("forkserver")
    context.set_forkserver_preload(["panmodal.training.run", "torch._dynamo"])  # once, for all that are to come
    port = free_port()
    started = [context.Process(target=train, args=(str(recipe), rank, ranks, port)) for rank in range(ranks)]
    for process in started:
        process.start()
    return started


def kill(recipe: Path, out: Path, times: int, ranks: int = 1, seed: int = 0) -> int:
    """Runs a recipe to its end, killing one of its processes so many times, each time a random few steps and
    hundredths of a second later, the others after it. Returns how often it was killed while it was alive."""
    chance, killed = random.Random(seed), 0
    for left in range(times, -1, -1):
        processes = start(recipe, ranks)
        enough, deadline = _lines(out) + chance.randint(1, STEPS), time.monotonic() + 300
        while left and _lines(out) < enough and all(p.is_alive() for p in processes) and time.monotonic() < deadline:
            time.sleep(0.01)
        if left:
            time.sleep(chance.random() / 20)
            chosen = chance.choice(processes)
            killed += chosen.is_alive()
            os.kill(chosen.pid or 0, signal.SIGKILL)
        for process in processes:
            process.join(10 if left else 300)  # those that lost one give up, or are made to
            process.kill()
            process.join()
        if not left and any(p.exitcode for p in processes):
            raise RuntimeError(f"the last run failed: {[p.exitcode for p in processes]}")
    return killed


def _lines(out: Path) -> int:
    try:
        return (out / "log.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def compare(folder: Path, times: int, ranks: int = 1, seed: int = 0) -> tuple[int, bool]:
    """-> how often it was killed, and whether the model's file is that of a run in peace, byte by byte"""
    models = []
    for name, kills in (("peace", 0), ("killed", times)):
        recipe = folder / f"{name}.toml"
        recipe.write_text(RECIPE.format(out=folder / name, steps=STEPS * (times + 1)))
        killed = kill(recipe, folder / name, kills, ranks, seed)
        models.append((folder / name / "model" / "model.safetensors").read_bytes())
    return killed, models[0] == models[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", nargs="?", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed, same = compare(Path(folder), given.times, given.ranks, given.seed)
    print(f"{killed} kills, {given.ranks} processes: the weights are {'the same' if same else 'NOT the same'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
