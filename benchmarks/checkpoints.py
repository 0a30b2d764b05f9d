"""The checkpoints that both sides load, with random weights, written by the reference library; and the pictures."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import torch

VISION = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LANGUAGE = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
VOCAB, KV_HEADS = 32000, 2
WIDER = 1024  # the language models of BLIP-2 and Flamingo, of 24 layers, too
IMAGE_TOKENS, TEXT_TOKENS = 196, 32
BLIP2_QUERIES, FLAMINGO_PICTURES = 32, 2
CLICKS = 16  # a side, of the grid by which everything is segmented
LEAST = "least.json"  # score and stability of a mask that counts
PICTURES = {"crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}}
TURNS = (  # what is said, as it is
    "{% for m in messages %}{% for p in m['content'] %}"
    "{{ '<image>' if p['type'] == 'image' else p['text'] }}{% endfor %}{% endfor %}"
)


def write(task: str, folder: Path) -> None:
    import transformers as tf

    from panmodal.playground.speech import tokenizer

    torch.manual_seed(0)
    image_token = tokenizer().backend.token_to_id("<image>")
    if task == "embed":
        vision = tf.CLIPVisionConfig(**VISION, image_size=224, patch_size=32)
        text = tf.CLIPTextConfig(vocab_size=1000, num_hidden_layers=1)
        model: Any = tf.CLIPModel(tf.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    elif task == "caption":
        model = tf.BlipForConditionalGeneration(tf.BlipConfig(vision_config={"initializer_range": 0.02}))
    elif task == "chat":
        vision = tf.CLIPVisionConfig(**VISION, image_size=224, patch_size=16)
        language = tf.LlamaConfig(**LANGUAGE, vocab_size=VOCAB, num_key_value_heads=KV_HEADS, eos_token_id=None)
        model = tf.LlavaForConditionalGeneration(
            tf.LlavaConfig(vision_config=vision, text_config=language, image_token_index=image_token)
        )
    elif task == "blip2":
        spoken = tf.OPTConfig(
            hidden_size=WIDER, word_embed_proj_dim=WIDER, ffn_dim=4 * WIDER, num_hidden_layers=24,
            num_attention_heads=16, vocab_size=VOCAB, eos_token_id=None,
        )  # fmt: skip
        model = tf.Blip2ForConditionalGeneration(
            tf.Blip2Config(
                vision_config={**VISION, "image_size": 224, "patch_size": 16, "initializer_range": 0.02},
                text_config=spoken.to_dict(), num_query_tokens=BLIP2_QUERIES, image_token_index=image_token,
            )
        )  # fmt: skip
    elif task == "flamingo":
        model = tf.IdeficsForVisionText2Text(
            tf.IdeficsConfig(
                hidden_size=WIDER, intermediate_size=2816, num_hidden_layers=24, num_attention_heads=16,
                vocab_size=VOCAB, additional_vocab_size=0, cross_layer_interval=4, use_resampler=True,
                alpha_initializer="ones", max_position_embeddings=2048, eos_token_id=None,
                vision_config={"embed_dim": 768, "patch_size": 16, "image_size": 224, "num_hidden_layers": 12,
                               "num_attention_heads": 12, "intermediate_size": 3072},
                perceiver_config={"use_resampler": True, "resampler_n_latents": 64, "resampler_depth": 6},
            )
        )  # fmt: skip
    else:
        vision = {"initializer_range": 0.02}  # as published 1e-10, of which products become slow: denormal numbers
        model = tf.SamModel(tf.SamConfig(vision_config=vision))  # ViT-B
        _sharpen(model)
    model.save_pretrained(folder)
    if task in ("caption", "chat", "blip2", "flamingo"):
        for name, content in tokenizer().to_files().items():
            (folder / name).write_bytes(content)
    if task in ("chat", "blip2", "flamingo"):
        (folder / "chat_template.jinja").write_text(TURNS)
    processors = {"caption": tf.BlipImageProcessor, "segment": tf.SamImageProcessorPil}
    process = processors[task]() if task in processors else tf.CLIPImageProcessor(**PICTURES)
    process.save_pretrained(folder)
    if task == "segment":
        _write_least(folder)


def _sharpen(model: Any) -> None:
    """Random weights make masks of which every logit is almost 0: those of trained ones spread over some tens."""
    at = torch.rand(1, 1, 1, 2) * 1024
    with torch.no_grad():
        spread = model(pixel_values=torch.randn(1, 3, 1024, 1024), input_points=at).pred_masks.std()
    for head in model.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data *= 10 / spread
        head.proj_out.bias.data *= 10 / spread


def _write_least(folder: Path) -> None:
    """Random weights have scores of their own: half of the masks are to pass, and of these half to be stable."""
    import panmodal as pm

    image = pm.Image(photographs(folder, 1)[0])
    anything = {"min_score": -1e9, "min_stability": -1.0, "max_overlap": 1.0}
    found = pm.load(folder).segment_everything(image, points_per_side=CLICKS // 2, **anything)
    score = median(part.score for part in found)
    least = {"min_score": score, "min_stability": median(part.stability for part in found if part.score > score)}
    (folder / LEAST).write_text(json.dumps(least))


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
