"""One side of a benchmark of models: `python -m benchmarks.models TASK SIDE FOLDER`.

It gets ready, prints what it holds, and then times one round for every line it reads. Both sides
load the same random weights from the same files, in float32 on two threads.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

THREADS = 2
VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LANGUAGE = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
VOCAB, KV_HEADS = 32000, 2
IMAGE_TOKENS, TEXT_TOKENS, NEW_TOKENS = 196, 32, 32
CAPTIONED, CAPTION_TOKENS = 32, 20  # pictures and words of each caption
PICTURES = {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
WORDS = "how many large red circles are there in this picture and what is the colour of the small square"
Round = Callable[[], dict[str, float]]


def write(task: str, folder: Path) -> None:
    """The checkpoint that both sides load, written by the reference library, and the pictures."""
    import transformers as tf

    from panmodal.playground.speech import tokenizer

    torch.manual_seed(0)
    if task == "embed":
        vision = tf.CLIPVisionConfig(**VISION, image_size=224, patch_size=32)
        text = tf.CLIPTextConfig(vocab_size=1000, num_hidden_layers=1)
        model: Any = tf.CLIPModel(tf.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    elif task == "caption":
        model = tf.BlipForConditionalGeneration(tf.BlipConfig(vision_config={"initializer_range": 0.02}))
        for name, content in tokenizer().to_files().items():
            (folder / name).write_bytes(content)
    else:
        vision = tf.CLIPVisionConfig(**VISION, image_size=224, patch_size=16)
        language = tf.LlamaConfig(**LANGUAGE, vocab_size=VOCAB, num_key_value_heads=KV_HEADS, eos_token_id=None)
        image_token = tokenizer().backend.token_to_id("<image>")
        model = tf.LlavaForConditionalGeneration(
            tf.LlavaConfig(vision_config=vision, text_config=language, image_token_index=image_token)
        )
        for name, content in tokenizer().to_files().items():
            (folder / name).write_bytes(content)
        (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{% for p in m['content'] %}"
            "{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endfor %}"
        )
    model.save_pretrained(folder)
    process = tf.BlipImageProcessor() if task == "caption" else tf.CLIPImageProcessor(**PICTURES)
    process.save_pretrained(folder)


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 640 x 480, as photographs commonly come: scenes of the playground over noise."""
    import numpy as np
    from PIL import Image

    from panmodal.playground import make_scene, render

    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if not path.exists():
            scene = Image.fromarray(render(make_scene(i), 640)).crop((0, 80, 640, 560))
            noise = np.random.default_rng(i).normal(0, 12, (480, 640, 3))
            Image.fromarray((np.asarray(scene) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def question(second: bool) -> str:
    """TEXT_TOKENS words, each one token; the second question's differ from the first on."""
    words = WORDS.split()
    start = 3 if second else 0
    return " ".join((words * 4)[start : start + TEXT_TOKENS])


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

    def ask(tokens: int, second: bool = False) -> float:
        return timed(lambda: model.reply([pm.user(pm.Image(path), question(second))], max_tokens=tokens))

    def once() -> dict[str, float]:
        model.forget()
        first = ask(1)
        again = ask(1, second=True)
        model.forget()
        longer = ask(1 + NEW_TOKENS)
        # ours adds a begin token; the last token is chosen and not read; an early end would flatter
        assert model._last.cache.length == 1 + IMAGE_TOKENS + TEXT_TOKENS + NEW_TOKENS
        return {"first": first, "second": again, "token": (longer - first) / NEW_TOKENS}

    return once


def chat_peer(folder: Path) -> Round:
    import transformers as tf
    from PIL import Image

    path = photographs(folder, 1)[0]
    model = tf.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    process = tf.CLIPImageProcessor.from_pretrained(folder)
    words = tf.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    def generate(tokens: int, second: bool) -> None:
        text = words(question(second), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[model.config.image_token_id] * IMAGE_TOKENS + text])
        pixels = process(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
        out = model.generate(
            input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
            do_sample=False,
        )  # fmt: skip
        assert out.shape[1] == ids.shape[1] + tokens

    def ask(tokens: int, second: bool = False) -> float:
        return timed(lambda: generate(tokens, second))

    def once() -> dict[str, float]:
        with torch.inference_mode():
            first = ask(1)
            return {
                "first": first,
                "second": ask(1, second=True),
                "token": (ask(1 + NEW_TOKENS) - first) / NEW_TOKENS,
            }

    return once


def caption_ours(folder: Path) -> Round:
    import panmodal as pm

    paths = photographs(folder, CAPTIONED)
    model = pm.load(folder)

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


def timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


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
        "embed": _tower(50, 32, 12),
        "caption": _tower(577, 16, 12) + 2 * 12 * (577 * 2 + CAPTION_TOKENS * 14) * 768**2,  # keys, and words
        "prompt": _tower(197, 16, 11) + prompt + 2 * IMAGE_TOKENS * d * (768 + d),
        "token": 2.0 * (24 * layer + d * VOCAB),  # float16 copies
    }


def _tower(tokens: int, patch: int, depth: int) -> float:
    return 2 * (tokens - 1) * 3 * patch * patch * 768 + depth * (2 * tokens * 12 * 768 * 768 + 4 * tokens**2 * 768)


SIDES = {
    ("embed", "ours"): embed_ours,
    ("embed", "peer"): embed_peer,
    ("caption", "ours"): caption_ours,
    ("caption", "peer"): caption_peer,
    ("chat", "ours"): chat_ours,
    ("chat", "peer"): chat_peer,
}


def main(task: str, side: str, folder: str) -> None:
    torch.set_num_threads(THREADS)
    once = SIDES[task, side](Path(folder))
    once()  # warm
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({**once(), "peak": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
