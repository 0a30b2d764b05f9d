"""One side of a benchmark of models: `python -m benchmarks.models TASK SIDE FOLDER`.

It gets ready, prints what it holds, and then times one round for every line it reads. Both sides
load the same random weights from the same files, in float32 on two threads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from benchmarks.checkpoints import IMAGE_TOKENS, KV_HEADS, LANGUAGE, TEXT_TOKENS, VOCAB
from benchmarks.sides import CAPTION_TOKENS, SIDES, timed

THREADS = 2


def peak_mb() -> float:
    """The most memory that this process has held. Not `getrusage`'s figure, which on Linux begins with the peak of
    the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def ceilings() -> dict[str, float]:
    """What the machine can do at best: float32 products per second, and bytes read per second."""
    a, b = torch.randn(1600, 3072), torch.randn(3072, 3072)
    big = torch.randn(64_000_000)  # 256 MB, which no cache holds
    for _ in range(2):
        a @ b, big.sum()
    product = min(timed(lambda: a @ b) for _ in range(8))
    read = min(timed(big.sum) for _ in range(8))
    return {"flops": 2 * a.shape[0] * 3072 * 3072 / product, "bytes": big.numel() * 4 / read}


def work() -> dict[str, float]:
    """Operations of one picture embedded or captioned and of one prompt, and bytes that a decoded token reads."""
    d, mlp, kv = LANGUAGE["hidden_size"], LANGUAGE["intermediate_size"], KV_HEADS * 64
    layer = 2 * d * d + 2 * d * kv + 3 * d * mlp  # weights
    tokens = IMAGE_TOKENS + TEXT_TOKENS
    prompt = 2 * tokens * 24 * layer + 24 * 4 * tokens * tokens * d + 2 * d * VOCAB
    return {
        "embed": _tower(50, 32, 11) + 2 * (50 * 2 + 10) * 768**2,  # of the last layer keys, values, and one token
        "caption": _tower(577, 16, 12) + 2 * 12 * (577 * 2 + CAPTION_TOKENS * 14) * 768**2,  # keys, and words
        "prompt": _tower(197, 16, 11) + prompt + 2 * IMAGE_TOKENS * d * (768 + d),
        "token": 2.0 * (24 * layer + d * VOCAB),  # float16 copies
    }


def _tower(tokens: int, patch: int, depth: int) -> float:
    return 2 * (tokens - 1) * 3 * patch * patch * 768 + depth * (2 * tokens * 12 * 768 * 768 + 4 * tokens**2 * 768)


def main(task: str, side: str, folder: str) -> None:
    torch.set_num_threads(THREADS)
    once = SIDES[task, side](Path(folder))
    if task != "segment":  # whose rounds take minutes, and warm themselves
        once()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({**once(), "peak": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
