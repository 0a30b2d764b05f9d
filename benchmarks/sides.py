"""The two sides of each benchmark: a function that gets ready and returns what times one round."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.checkpoints import (
    BLIP2_QUERIES,
    CLICKS,
    FLAMINGO_PICTURES,
    IMAGE_TOKENS,
    LEAST,
    TEXT_TOKENS,
    photographs,
)

NEW_TOKENS = 32
CAPTIONED, CAPTION_TOKENS = 32, 20  # pictures and words of each caption
CLICK = (320, 240)
WORDS = "how many large red circles are there in this picture and what is the colour of the small square"
Round = Callable[[], dict[str, float]]


def timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def question(second: bool = False, words: int = TEXT_TOKENS) -> str:
    """Words, each one token; the second question's differ from the first on."""
    start = 3 if second else 0
    return " ".join((WORDS.split() * 4)[start : start + words])


def embed_ours(folder: Path) -> Round:
    import panmodal as pm

    paths = photographs(folder, 64)
    model = pm.load(folder)

    def once() -> dict[str, float]:
        return {"s": timed(lambda: model.embed([pm.Image(p) for p in paths])) / len(paths)}

    return once


def embed_peer(folder: Path) -> Round:
    import transformers as tf
    from PIL import Image

    paths = photographs(folder, 64)
    model, process = tf.CLIPModel.from_pretrained(folder).eval(), tf.CLIPImageProcessor.from_pretrained(folder)

    def embed() -> None:
        for start in range(0, len(paths), 32):
            pictures = [Image.open(p).convert("RGB") for p in paths[start : start + 32]]
            model.get_image_features(**process(pictures, return_tensors="pt"))

    def once() -> dict[str, float]:
        with torch.inference_mode():
            return {"s": timed(embed) / len(paths)}

    return once


def chat_ours(folder: Path) -> Round:
    import panmodal as pm

    path = photographs(folder, 1)[0]
    model = pm.load(folder).quicken()

    def once() -> dict[str, float]:
        times, say = _asked(model, [pm.Image(path), question()], 1 + IMAGE_TOKENS + TEXT_TOKENS)
        say(1)
        times["second"] = timed(lambda: model.reply([pm.user(pm.Image(path), question(second=True))], max_tokens=1))
        return times

    return once


def blip2_ours(folder: Path) -> Round:
    import panmodal as pm

    path = photographs(folder, 1)[0]
    model = pm.load(folder).quicken()
    return lambda: _asked(model, [pm.Image(path), question()], 1 + BLIP2_QUERIES + TEXT_TOKENS)[0]


def flamingo_ours(folder: Path) -> Round:
    import panmodal as pm

    paths = photographs(folder, FLAMINGO_PICTURES)
    model = pm.load(folder).quicken()
    words = question(words=TEXT_TOKENS // FLAMINGO_PICTURES)
    said = [part for path in paths for part in (pm.Image(path), words)]
    return lambda: _asked(model, said, 1 + FLAMINGO_PICTURES + TEXT_TOKENS)[0]


def _asked(model: Any, said: Sequence[Any], length: int) -> tuple[dict[str, float], Callable[[int], None]]:
    """Seconds of the first token and of each further one, and what says some tokens with nothing remembered. `length`
    is the prompt's: ours adds a begin token."""
    import panmodal as pm

    def say(tokens: int) -> None:
        model.forget()
        model.reply([pm.user(*said)], max_tokens=tokens)

    first = timed(lambda: say(1))
    longer = timed(lambda: say(1 + NEW_TOKENS))
    # the last token is chosen and not read; an early end would flatter
    assert model._last.cache.length == length + NEW_TOKENS, (model._last.cache.length, length)
    return {"first": first, "token": (longer - first) / NEW_TOKENS}, say


def chat_peer(folder: Path) -> Round:
    import transformers as tf

    model = tf.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    prompt = _prompts(
        folder, tf.CLIPImageProcessor.from_pretrained(folder), [model.config.image_token_id] * IMAGE_TOKENS
    )

    def once() -> dict[str, float]:
        times = _generated(model, prompt)
        times["second"] = timed(lambda: _generate(model, prompt(second=True), 1))
        return times

    return once


def blip2_peer(folder: Path) -> Round:
    import transformers as tf

    model = tf.Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    image = [model.config.image_token_index] * BLIP2_QUERIES
    prompt = _prompts(folder, tf.CLIPImageProcessor.from_pretrained(folder), image)
    return lambda: _generated(model, prompt)


def flamingo_peer(folder: Path) -> Round:
    import transformers as tf
    from PIL import Image

    paths = photographs(folder, FLAMINGO_PICTURES)
    model = tf.IdeficsForVisionText2Text.from_pretrained(folder).eval()
    process = tf.CLIPImageProcessor.from_pretrained(folder)
    words = _words(folder)
    image = words.convert_tokens_to_ids("<image>")
    text = [image, *words(question(words=TEXT_TOKENS // len(paths)), add_special_tokens=False)["input_ids"]]

    def prompt() -> dict[str, torch.Tensor]:
        ids = torch.tensor([text * len(paths)])
        pixels = process([Image.open(p).convert("RGB") for p in paths], return_tensors="pt")["pixel_values"]
        latest = (ids == image).cumsum(1)[..., None] == torch.arange(1, len(paths) + 1)
        return {"input_ids": ids, "pixel_values": pixels[None], "image_attention_mask": latest.long()}

    return lambda: _generated(model, prompt)


def _words(folder: Path) -> Any:
    import transformers as tf

    return tf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def _prompts(folder: Path, process: Any, image: list[int]) -> Callable[..., dict[str, torch.Tensor]]:
    """What makes the model's input of a picture's file and a question"""
    from PIL import Image

    path = photographs(folder, 1)[0]
    words = _words(folder)

    def prompt(second: bool = False) -> dict[str, torch.Tensor]:
        ids = torch.tensor([image + words(question(second), add_special_tokens=False)["input_ids"]])
        return {"input_ids": ids, **process(Image.open(path).convert("RGB"), return_tensors="pt")}

    return prompt


def _generated(model: Any, prompt: Callable[[], dict[str, torch.Tensor]]) -> dict[str, float]:
    first = timed(lambda: _generate(model, prompt(), 1))
    longer = timed(lambda: _generate(model, prompt(), 1 + NEW_TOKENS))
    return {"first": first, "token": (longer - first) / NEW_TOKENS}


@torch.inference_mode()
def _generate(model: Any, prompt: dict[str, torch.Tensor], tokens: int) -> None:
    ids = prompt["input_ids"]
    out = model.generate(**prompt, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)
    assert out.shape[1] in (tokens, ids.shape[1] + tokens)


def caption_ours(folder: Path) -> Round:
    import panmodal as pm

    paths = photographs(folder, CAPTIONED)
    model = pm.load(folder).quicken()

    def once() -> dict[str, float]:
        caption = lambda: model.caption_all([pm.Image(p) for p in paths], max_tokens=CAPTION_TOKENS)  # noqa: E731
        return {"s": timed(caption) / len(paths)}

    return once


def caption_peer(folder: Path) -> Round:
    import transformers as tf
    from PIL import Image

    paths = photographs(folder, CAPTIONED)
    model = tf.BlipForConditionalGeneration.from_pretrained(folder).eval()
    process = tf.BlipImageProcessor.from_pretrained(folder)

    def caption() -> None:
        pictures = [Image.open(p).convert("RGB") for p in paths]
        model.generate(**process(pictures, return_tensors="pt"), max_new_tokens=CAPTION_TOKENS, do_sample=False)

    def once() -> dict[str, float]:
        with torch.inference_mode():
            return {"s": timed(caption) / len(paths)}

    return once


def segment_ours(folder: Path) -> Round:
    import panmodal as pm

    image = lambda: pm.Image(photographs(folder, 1)[0])  # noqa: E731
    model = pm.load(folder)
    least = json.loads((folder / LEAST).read_text())
    found: list[Any] = []

    def everything() -> None:
        found[:] = [part.rle for part in model.segment_everything(image(), points_per_side=CLICKS, **least)]

    def once() -> dict[str, float]:
        seen = model.embed_image(image())
        model.segment(seen, points=[CLICK])
        return {
            "encode": timed(lambda: model.embed_image(image())),
            "click": timed(lambda: model.segment(seen, points=[CLICK])),
            "everything": timed(everything),
            "found": len(found),
        }

    return once


def segment_peer(folder: Path) -> Round:
    """The steps of the library's mask generation, which itself needs torchvision, for suppression alone; that is
    ours on both sides."""
    import transformers as tf
    from PIL import Image

    from panmodal.generators.everything import box_overlaps, suppress

    path = photographs(folder, 1)[0]
    model = tf.SamModel.from_pretrained(folder).eval()
    process = tf.SamImageProcessorPil.from_pretrained(folder)
    least = json.loads((folder / LEAST).read_text())
    found: list[Any] = []

    def encode(image: Any) -> tuple[Any, Any]:
        batch = process(image, return_tensors="pt")
        return model.get_image_embeddings(batch["pixel_values"]), (
            batch["original_sizes"],
            batch["reshaped_input_sizes"],
        )

    def click(seen: Any, sizes: Any) -> None:
        scale = 1024 / 640
        points, labels = torch.tensor([[[[x * scale for x in CLICK]]]]), torch.ones(1, 1, 1, dtype=torch.long)
        answer = model(image_embeddings=seen, input_points=points, input_labels=labels, multimask_output=True)
        process.post_process_masks(answer.pred_masks, *sizes)

    def everything() -> None:
        image = Image.open(path).convert("RGB")
        boxes, points, crops, labels = process.generate_crop_boxes(image, 1024, points_per_crop=CLICKS)
        seen, sizes = encode(crops)
        kept: list[tuple[Any, ...]] = []
        for start in range(0, points.shape[1], 64):
            some = slice(start, start + 64)
            answer = model(image_embeddings=seen, input_points=points[:, some].float(), input_labels=labels[:, some])
            (masks,) = process.post_process_masks(answer.pred_masks, *sizes, binarize=False)
            size, box = image.size[::-1], boxes[0].tolist()
            kept.append(process.filter_masks(masks, answer.iou_scores[0], size, box, *least.values()))
        scores, corners = (torch.cat([part[i] for part in kept]) for i in (1, 2))
        rles = [rle for part in kept for rle in part[0]]
        found[:] = [rles[i] for i in suppress(box_overlaps(corners + torch.tensor([0, 0, 1, 1])), scores, 0.7).tolist()]

    def once() -> dict[str, float]:
        with torch.inference_mode():
            image = lambda: Image.open(path).convert("RGB")  # noqa: E731
            seen = encode(image())
            click(*seen)
            return {
                "encode": timed(lambda: encode(image())),
                "click": timed(lambda: click(*seen)),
                "everything": timed(everything),
                "found": len(found),
            }

    return once


SIDES = {
    (task, side): globals()[f"{task}_{side}"]
    for task in ("embed", "caption", "chat", "blip2", "flamingo", "segment")
    for side in ("ours", "peer")
}
