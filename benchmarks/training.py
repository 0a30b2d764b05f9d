"""Trained tokens a second, packed, beside the Hugging Face Trainer with its padding collator, and TRL's SFT trainer,
which packs: the benchmarks `train` and `train-trl` of `panmodal bench`; and `load`, the making of batches alone beside
what tiny/chat takes to learn from them.

All learn from the same conversations, from the same weights, with the same AdamW, in float32; the Trainer in the same
order. Each round is a process of its own, on one thread, and the time is the processor's. Tokens are those that are no
padding.
"""

from __future__ import annotations

import json
import random
import resource
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


def trainer(folder: Path) -> dict[str, Any]:
    import transformers as tf

    model, tokenizer, steps = _peer(folder)
    rows = [row for step in steps for row in step]
    collate = tf.DataCollatorForSeq2Seq(tokenizer, padding=True)
    tokens = [sum(len(row["input_ids"]) for row in step) for step in steps]
    with TemporaryDirectory() as out:
        peer = tf.Trainer(model, tf.TrainingArguments(out, **_arguments(BATCH)), collate, rows)
        peer._get_train_sampler = lambda *given: torch.utils.data.SequentialSampler(range(len(rows)))
        return _trained(peer, tokens)


def trl(folder: Path) -> dict[str, Any]:
    """Rows filled as well as may be (best fit decreasing), of which as many make a step as hold its tokens."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, steps = _peer(folder)
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label >= 0) for label in row["labels"]]}
        for step in steps
        for row in step
    ]
    lengths = [len(row["input_ids"]) for row in rows]
    few = max(1, round(sum(lengths) / STEPS / ROW))
    with TemporaryDirectory() as out:
        settings = SFTConfig(out, packing=True, max_length=ROW, gradient_checkpointing=False, **_arguments(few))
        peer = SFTTrainer(model, settings, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
        seen: list[int] = []
        collate = peer.data_collator

        def counting(some: Any) -> Any:
            batch = collate(some)
            seen.append(int(batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()))
            return batch

        peer.data_collator = counting
        return _trained(peer, seen)


def _peer(folder: Path) -> tuple[Any, Any, list[list[dict[str, list[int]]]]]:
    """The model and tokenizer as the reference loads them, and each step's conversations"""
    import transformers as tf

    import panmodal as pm

    steps = encoded(pm.load(folder).processor)
    model = tf.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>", eos_token="</s>"
    )
    return model, tokenizer, [[{"input_ids": e.ids, "labels": e.labels} for e in step] for step in steps]


def _arguments(rows: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": rows, "max_steps": STEPS, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "adam_beta1": BETAS[0], "adam_beta2": BETAS[1], "logging_steps": 1,
        "report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


def _trained(peer: Any, tokens: list[int]) -> dict[str, Any]:
    """Runs a trainer; `tokens` are those of each step, known at the latest when it has run."""
    import transformers as tf

    at: list[float] = []

    class Clock(tf.TrainerCallback):
        def on_step_end(self, *given: Any, **more: Any) -> None:
            at.append(time.process_time())

    peer.add_callback(Clock())
    peer.train()
    losses = [line["loss"] for line in peer.state.log_history if "loss" in line]
    rate = sum(tokens[WARM:STEPS]) / (at[-1] - at[WARM - 1])
    return {"tokens_per_second": rate, "losses": losses, "peak_mb": peak_mb()}


def _pictured() -> Any:
    """tiny/chat tuned on conversations about pictures, from files as LLaVA's data have them"""
    from panmodal.training import Stage

    rates = {"connector": RATE, "language": RATE}
    return Stage("s", "answers", "", rates, STEPS, BATCH, warmup=0, final=1.0, pack=True, precision="auto")


def loading(folder: Path) -> dict[str, Any]:
    import panmodal as pm
    from panmodal.data.formats import open_data
    from panmodal.training.stream import Position, batches

    processor = pm.load("tiny/chat").processor
    made = batches(open_data(folder / "asked" / "data.json"), processor, _pictured(), 0, Position())
    return measured((0.0, sum(b.tokens for b in some)) for (some, _), _ in zip(made, range(STEPS), strict=False))


def learning(folder: Path) -> dict[str, Any]:
    import panmodal as pm
    from panmodal.data.formats import open_data
    from panmodal.training import train

    steps = train(pm.load("tiny/chat"), open_data(folder / "asked" / "data.json"), _pictured())
    return measured((step.loss, step.tokens) for step in steps)


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


def write(folder: Path) -> None:
    from panmodal.families import family_of
    from panmodal.playground.export import export_llava
    from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer

    torch.manual_seed(0)
    files = {**tokenizer().to_files(), "chat_template.jinja": CHAT_TEMPLATE.encode()}
    family_of(CONFIG).fresh(CONFIG, files).save(folder)
    export_llava(folder / "asked", 2 * BATCH * STEPS, "train", 96, 0, "relation", lambda done, total: None)


SIDES = {"ours": ours, "trainer": trainer, "trl": trl, "loading": loading, "learning": learning}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(SIDES[sys.argv[1]](Path(sys.argv[2]))))
