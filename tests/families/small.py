"""A small untrained model of every family, over the playground's tokenizer."""

from __future__ import annotations

import json

import torch

from panmodal.data.processor import Processor
from panmodal.families import FAMILIES, Family, compose
from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer
from panmodal.transformer import initialise

PICTURES = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
TOWER = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
SEEN = dict(**TOWER, image_size=32, patch_size=8)
READ = dict(**TOWER, vocab_size=344, max_position_embeddings=96, eos_token_id=3)
SPOKEN = dict(**TOWER, vocab_size=344, max_position_embeddings=256, tie_word_embeddings=True)
SEGMENTS = dict(
    vision_config=dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_dim=64,
        image_size=32,
        patch_size=4,
        window_size=3,
        global_attn_indexes=[1],
        output_channels=32,
    ),
    prompt_encoder_config=dict(hidden_size=32, image_size=32),
    mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
)

CONFIGS = {
    "clip": dict(model_type="clip", vision_config=SEEN, text_config=READ, projection_dim=16),
    "siglip": dict(model_type="siglip", vision_config=SEEN, text_config=READ),
    "llama": dict(model_type="llama", **SPOKEN),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=2, head_dim=8, **SPOKEN),
    "gpt2": dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=344, n_positions=256),
    "opt": dict(model_type="opt", ffn_dim=64, word_embed_proj_dim=32, **SPOKEN),
    "vit": dict(model_type="vit", **SEEN),
    "dinov2": dict(model_type="dinov2", **SEEN),
    "sam": dict(model_type="sam", **SEGMENTS),
    "bert": dict(model_type="bert", **{k: v for k, v in READ.items() if k != "eos_token_id"}),
}


def small(name: str, std: float = 0.1) -> Family:
    """`name`: a key of CONFIGS, or `llava` (with `-linear`, `-pixel_shuffle`), composed of two."""
    torch.manual_seed(0)
    if name.startswith("llava"):
        connector = name.partition("-")[2] or "mlp"
        family = compose(small("clip", std), connector, small("llama", std))
    else:
        config = CONFIGS[name]
        files = {**tokenizer().to_files(), "preprocessor_config.json": json.dumps(PICTURES).encode()}
        if "vocab_size" in config and config["model_type"] != "bert":
            files["chat_template.jinja"] = CHAT_TEMPLATE.encode()
        if config["model_type"] in ("vit", "dinov2"):
            files = {"preprocessor_config.json": files["preprocessor_config.json"]}
        if config["model_type"] == "sam":
            padded = {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 32}}
            files = {"preprocessor_config.json": json.dumps(padded).encode()}
        family = FAMILIES[config["model_type"]].fresh(config, files)
    if name != "sam":  # whose positions must not be quiet
        initialise(family.model, std)
    assert isinstance(family.processor, Processor)
    return family


NAMES = [*CONFIGS, "llava", "llava-linear", "llava-pixel_shuffle"]
CHATS = ["llama", "qwen3", "gpt2", "opt", "llava", "llava-pixel_shuffle"]
EMBEDDERS = ["clip", "siglip", "vit", "dinov2", "bert"]
