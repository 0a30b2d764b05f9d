"""A model with adapters in every way that it can be had: as trained; its adapters saved, and read back by panmodal and
by PEFT; merged; and merged, saved and read back.

    python -m benchmarks.adapters runs/adapters    # trains by recipes/tiny/lora.toml: some minutes of two cores

Prints how far the logits of each are from those of the trained model, at most, and of how many questions about held-out
scenes the answer is the same, and right. Needs `peft` and `transformers`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import panmodal as pm
from panmodal.data.sample import Batch
from panmodal.evaluation.metrics import exact_match
from panmodal.families import Chat
from panmodal.playground import make_scene, questions, render
from panmodal.training import read_recipe, train
from panmodal.training.run import build, open_source

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny" / "lora.toml"
TOKENS = 2  # of an answer: a word, and its end
Model = Callable[[Tensor, Tensor], Tensor]  # ids [1, T] and pictures -> logits [1, T, V]


@dataclass(frozen=True)
class Row:
    model: str
    apart: float  # the greatest difference of logits
    same: int  # answers
    right: int
    asked: int


def compare(out: Path, scenes: int, changes: Sequence[str] = ()) -> Iterator[Row]:
    recipe = read_recipe(RECIPE, changes)
    torch.manual_seed(recipe.seed)
    (stage,), chat = recipe.stages, build(recipe.model)
    assert isinstance(chat, Chat)
    chat.save(out / "base")
    for step in train(chat, open_source(stage.data), stage, seed=recipe.seed):
        print(f"step {step.number} of {stage.steps}: loss {step.loss:.3f}")
    chat.save(out / "adapter")
    batches, rights = [], []
    for scene in (make_scene(seed, "held-out") for seed in range(scenes)):
        for question in questions(scene, 1, kinds=("extreme",)):
            prompt = chat.processor.encode([pm.user(pm.Image(render(scene)), question.text)], reply=True)
            batches.append(chat.processor.batch([prompt]))
            rights.append(question.answer)
    expected, decode = [answer(chat.model, batch) for batch in batches], chat.processor.tokenizer.decode
    for name, model in _models(chat, out):
        found = [answer(model, batch) for batch in batches]
        pairs = list(zip(found, expected, strict=True))
        yield Row(
            name,
            max((ours - theirs).abs().max().item() for (_, ours), (_, theirs) in pairs),
            sum(ours == theirs for (ours, _), (theirs, _) in pairs),
            sum(exact_match(decode(ids), right) for (ids, _), right in zip(found, rights, strict=True)),
            len(batches),
        )


def _models(chat: Chat, out: Path) -> Iterator[tuple[str, Model]]:
    import peft
    import transformers as tf

    yield "without adapters", pm.load(out / "base").model  # so that a row of zeros is seen to mean something
    yield "as trained", chat.model
    yield "adapters read back", pm.load(out / "base", adapter=out / "adapter").model
    theirs = tf.LlavaForConditionalGeneration.from_pretrained(out / "base", dtype=torch.float32)
    wrapped = peft.PeftModel.from_pretrained(theirs, out / "adapter").eval()
    yield "adapters read by PEFT", lambda ids, images: wrapped(input_ids=ids, pixel_values=images).logits
    yield "merged", chat.merge().model
    chat.save(out / "merged")
    yield "merged and read back", pm.load(out / "merged").model


@torch.no_grad()
def answer(model: Model, batch: Batch) -> tuple[list[int], Tensor]:
    """The likeliest tokens one after another, and the logits of the prompt and of them."""
    ids, images = batch.ids, batch.images
    assert images is not None
    for _ in range(TOKENS):
        logits = model(ids, images)
        ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
    return ids[0, batch.ids.shape[1] :].tolist(), logits[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args()
    for row in compare(args.out, args.scenes, args.changes):
        print(f"{row.model:24}{row.apart:10.2g} apart, {row.same} of {row.asked} the same, {row.right} right")
