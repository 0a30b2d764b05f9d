"""Trained tokens a second, packed, beside the Hugging Face Trainer and its padding collator.

    python -m benchmarks.training [ROUNDS]

Both sides learn from the same conversations in the same order, from the same weights, with the same AdamW, in float32;
each round is a process of its own. Tokens are those that are no padding. The Trainer needs `accelerate`; without it a
plain loop over the same model and collator stands in, which does nothing that the Trainer would not do.
"""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

BATCH, STEPS, WARM, ROW = 16, 16, 4, 512
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 4}
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES, "vocab_size": 344}
CONFIG |= {"max_position_embeddings": 640, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
RATE, BETAS = 1e-3, (0.9, 0.98)


class Conversations:
    """Of one to eight questions, most of them short: tens to hundreds of tokens"""

    size = None

    def sample(self, index: int) -> Any:
        from panmodal.data.sample import Message, Sample, Text
        from panmodal.playground.speech import instruction_sample

        chance = random.Random(index)
        turns = 2 * min(8, 1 + int(chance.expovariate(0.5)))
        said = instruction_sample(index).messages[:turns]
        return Sample(tuple(Message(m.role, tuple(p for p in m.parts if isinstance(p, Text))) for m in said))


def encoded(processor: Any) -> list[list[Any]]:
    """Each step's conversations, as both sides read them"""
    from panmodal.training.stages import OBJECTIVES

    source, objective = Conversations(), OBJECTIVES["answers"]
    return [
        [objective.encode(processor, source.sample(i)) for i in range(step * BATCH, (step + 1) * BATCH)]
        for step in range(STEPS)
    ]


def ours(folder: Path) -> dict[str, Any]:
    import panmodal as pm
    from panmodal.training import Stage, train

    stage = Stage("s", "answers", "", {"all": RATE}, STEPS, BATCH, warmup=0, final=1.0, betas=BETAS, pack=ROW)
    return measured((step.loss, step.tokens) for step in train(pm.load(folder), Conversations(), stage))


def peer(folder: Path) -> dict[str, Any]:
    import transformers as tf

    import panmodal as pm

    steps = encoded(pm.load(folder).processor)
    model = tf.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>")
    collate = tf.DataCollatorForSeq2Seq(tokenizer, padding=True)
    rows = [[{"input_ids": e.ids, "labels": e.labels} for e in step] for step in steps]
    tokens = [sum(len(row["input_ids"]) for row in step) for step in rows]
    if importlib.util.find_spec("accelerate"):
        return _trainer(tf, model, collate, rows, tokens)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=0.0, fused=True)

    def run() -> Any:
        model.train()
        for step, count in zip(rows, tokens, strict=True):
            loss = model(**collate(step)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            yield loss.item(), count

    return measured(run())


def _trainer(tf: Any, model: Any, collate: Any, rows: Any, tokens: list[int]) -> dict[str, Any]:
    class Clock(tf.TrainerCallback):
        def __init__(self) -> None:
            self.at: list[float] = []

        def on_step_end(self, *given: Any, **more: Any) -> None:
            self.at.append(time.process_time())

    clock = Clock()
    with TemporaryDirectory() as out:
        arguments = tf.TrainingArguments(
            out,
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = tf.Trainer(model, arguments, collate, [row for step in rows for row in step], callbacks=[clock])
        trainer._get_train_sampler = lambda *given: torch.utils.data.SequentialSampler(range(STEPS * BATCH))
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    rate = sum(tokens[WARM:]) / (clock.at[-1] - clock.at[WARM - 1])
    return {"tokens_per_second": rate, "losses": losses, "peak_mb": peak_mb()}


def measured(steps: Any) -> dict[str, Any]:
    """Runs the steps; the first WARM are not timed. The time is the processor's, so that others on the machine count
    for little."""
    losses, tokens, started = [], 0, 0.0
    for i, (loss, count) in enumerate(steps, 1):
        losses.append(loss)
        tokens += count if i > WARM else 0
        started = time.process_time() if i == WARM else started
    rate = tokens / (time.process_time() - started)
    return {"tokens_per_second": rate, "losses": losses, "peak_mb": peak_mb()}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(rounds: int) -> None:
    from panmodal.families import family_of
    from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer

    with TemporaryDirectory() as folder:
        torch.manual_seed(0)
        files = {**tokenizer().to_files(), "chat_template.jinja": CHAT_TEMPLATE.encode()}
        family = family_of(CONFIG).fresh(CONFIG, files)
        family.save(folder)
        lengths = [[len(e.ids) for e in step] for step in encoded(family.processor)]
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
        for _ in range(rounds):
            for side, results in found.items():
                command = [sys.executable, "-m", "benchmarks.training", side, folder]
                results.append(json.loads(subprocess.check_output(command, text=True).splitlines()[-1]))
    rates = {side: statistics.median(r["tokens_per_second"] for r in results) for side, results in found.items()}
    apart = max(abs(a - b) for a, b in zip(found["ours"][0]["losses"], found["peer"][0]["losses"], strict=True))
    padding = 1 - sum(map(sum, lengths)) / sum(max(step) * len(step) for step in lengths)
    result = {
        "what": f"{BATCH} conversations a step, rows of {ROW} tokens, against padding to the longest, float32",
        "peer": "Trainer" if importlib.util.find_spec("accelerate") else "plain loop, for want of accelerate",
        "tokens_per_second": rates,
        "ratio": rates["ours"] / rates["peer"],
        "padding_of_the_peer": padding,
        "losses_apart_at_most": apart,
        "peak_mb": {side: max(r["peak_mb"] for r in results) for side, results in found.items()},
        "rounds": rounds,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["peer"]):
        torch.set_num_threads(1)
        print(json.dumps((ours if sys.argv[1] == "ours" else peer)(Path(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
