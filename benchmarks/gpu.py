"""Tokens a second, and the share of the device's arithmetic that they are, of training a LLaVA on one GPU.

    python -m benchmarks.gpu [--size 1b] [--steps 20] [--row 4096] [--compile] [--checkpointing] [--device cuda]

All is trained: the tower, the connector and the language model, with random weights, in bfloat16 over float32 masters,
on rows packed full of conversations about pictures. Model FLOP utilisation counts what the model needs, 6 a weight and
token, and attention, as PaLM does (Chowdhery et al., 2022, appendix B), and nothing that is made again; it is a share
of the largest product rate measured on the same device just before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import nn

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
TOWER = {"model_type": "clip_vision_model", **LARGE, "image_size": 336, "patch_size": 14}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # tower and language model
    "tiny": ({**TOWER, **SMALL, "image_size": 56}, SMALL),
    "1b": (
        TOWER,
        {"hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32, "intermediate_size": 5632,
         "num_key_value_heads": 4},
    ),
    "3b": (
        TOWER,
        {"hidden_size": 3072, "num_hidden_layers": 26, "num_attention_heads": 24, "intermediate_size": 8192,
         "num_key_value_heads": 8},
    ),
}  # fmt: skip
WARM = 5  # steps that are not counted


def build(size: str, row: int) -> Any:
    from panmodal.families import family_of
    from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer

    tower, language = SIZES[size]
    pixels = {"height": tower["image_size"], "width": tower["image_size"]}
    files = {
        **tokenizer().to_files(),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "preprocessor_config.json": json.dumps(
            {"image_processor_type": "SiglipImageProcessor", "size": pixels}
        ).encode(),
    }
    config = {
        "model_type": "llava", "vision_config": tower, "image_token_index": tokenizer().id_of("<image>"),
        "text_config": {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": row, **language},
    }  # fmt: skip
    return family_of(config).fresh(config, files)


def product_rate(device: str) -> float:
    """Operations a second of a large product in bfloat16"""
    n = 8192 if device.startswith("cuda") else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def needed(model: Any, tokens: int, pictures: int, length: float) -> float:
    """Operations of a step that learns from so many tokens, in conversations of about `length` tokens"""
    tower, language = model.encoder, model.language
    patches = tower.embed.grid**2 + 1
    return _of(tower, pictures * patches, patches) + _of(language, tokens, length / 2)  # causal: half of it


def _of(part: Any, tokens: float, seen: float) -> float:
    weights = sum(m.weight.numel() for m in part.modules() if isinstance(m, nn.Linear))
    config = part.body.config
    return 6 * tokens * weights + 12 * config.depth * config.heads * config.head_width * seen * tokens


def main() -> None:
    from panmodal.playground.speech import instruction_sample
    from panmodal.training import Stage, train
    from panmodal.training.run import Playground

    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--size", choices=SIZES, default="1b")
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--row", type=int, default=4096, help="tokens a row")
    asked.add_argument("--batch", type=int, default=16, help="conversations a step")
    asked.add_argument("--workers", type=int, default=4)
    asked.add_argument("--compile", action="store_true")
    asked.add_argument("--checkpointing", action="store_true")
    asked.add_argument("--device", default="cuda")
    given = asked.parse_args()
    most = product_rate(given.device)
    family = build(given.size, given.row).to(given.device)
    length = statistics.fmean(len(family.processor.expand(instruction_sample(i).messages).ids) for i in range(32))
    stage = Stage(
        "s", "answers", "", {"all": 1e-4}, WARM + given.steps, given.batch, precision="bfloat16", pack=given.row,
        compile=given.compile, checkpointing=given.checkpointing,
    )  # fmt: skip
    rates, shares, memory = [], [], 0
    for step in train(family, Playground(instruction_sample), stage, workers=given.workers):
        memory = step.memory
        if step.number > WARM:
            rates.append(step.tokens / step.seconds)
            shares.append(needed(family.model, step.tokens, step.samples, length) / step.seconds / most)
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else "CPU"
    told = {
        "device": name, "size": given.size, "parameters": sum(p.numel() for p in family.model.parameters()),
        "product_rate_tflops": round(most / 1e12, 1), "tokens_per_second": round(statistics.median(rates)),
        "model_flop_utilisation": round(statistics.median(shares), 3), "memory_gb": round(memory / 1e9, 1),
        "compile": given.compile, "checkpointing": given.checkpointing,
    }  # fmt: skip
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
