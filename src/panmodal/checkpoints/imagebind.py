"""ImageBind's published weights: what a tower is made of, and the names of its tensors.

The published file has weights alone, of one size. In a folder of ours, `config.json` has a `…_config` for
every tower that is there, `vision_config` always, in which what is not said is as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from panmodal.checkpoints.names import SPARE, Names, To, qkv, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, TEXT_ENCODERS, Config, Part, blocks
from panmodal.embeddings import SignalEmbedding, TokenEmbedding
from panmodal.encoders.signal import MotionPatches, SignalEncoder, Tubelets
from panmodal.encoders.text import TextEncoder
from panmodal.transformer import TransformerConfig

PUBLISHED_DIM = 1024  # of the shared space


def _trunk(c: Config, causal: bool = False) -> TransformerConfig:
    return blocks({**c, "intermediate_size": None}, norm_eps=c["layer_norm_eps"], causal=causal)


def _vision(c: Config) -> SignalEncoder:
    trunk, side = _trunk(c), c["image_size"] // c["patch_size"]
    project = Tubelets(trunk.dim, c["num_frames"], c["patch_size"])
    embed = SignalEmbedding(project, (side, side), trunk.dim, norm=trunk.make_norm())
    return SignalEncoder(embed, trunk, c["projection_dim"], biased=False)


def _text(c: Config) -> TextEncoder:
    trunk = _trunk(c, causal=True)
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, c["max_position_embeddings"])
    head = nn.Linear(trunk.dim, c["projection_dim"], bias=False)
    return TextEncoder(embed, trunk, "end", head, c["eos_token_id"])


def _grid(c: Config) -> SignalEncoder:
    """Of a spectrogram, a depth map or a thermal picture: one channel, patches that may overlap."""
    trunk, patch, stride = _trunk(c), c["patch_size"], c["stride"]
    rows, columns = ((side - patch) // stride + 1 for side in (c["height"], c["width"]))
    project = nn.Conv2d(1, trunk.dim, patch, stride, bias=False)
    embed = SignalEmbedding(project, (rows, columns), trunk.dim, nn.LayerNorm(trunk.dim))
    return SignalEncoder(embed, trunk, c["projection_dim"], biased=True)


def _imu(c: Config) -> SignalEncoder:
    trunk, length = _trunk(c), c["patch_size"]
    project = MotionPatches(trunk.dim, c["num_channels"], length)
    embed = SignalEmbedding(project, (1, c["num_samples"] // length), trunk.dim, nn.LayerNorm(trunk.dim))
    return SignalEncoder(embed, trunk, c["projection_dim"], biased=True)


def _names(
    theirs: str,
    ours: str,
    stem: str = "rgbt_stem",
    project: str = "proj",
    positions: str = "pos_embedding_helper.pos_embed",
    head: str = "2",
) -> Names:
    """A tower's tensors; the defaults are how most towers' first and last layers are called."""
    return {
        **under(f"modality_trunks.{theirs}.", _TRUNK, f"{ours}.body."),
        f"modality_preprocessors.{theirs}.cls_token": To((f"{ours}.embed.class_token",), ones=2),
        f"modality_preprocessors.{theirs}.{stem}.{project}": f"{ours}.embed.project",
        f"modality_preprocessors.{theirs}.{stem}.norm_layer": f"{ours}.embed.patch_norm",
        f"modality_preprocessors.{theirs}.{positions}": To((f"{ours}.embed.positions",), ones=1),
        f"modality_heads.{theirs}.0": f"{ours}.body.norm",
        f"modality_heads.{theirs}.{head}": f"{ours}.head",
        f"modality_postprocessors.{theirs}.1.log_logit_scale": f"scales.{ours}",
    }


_TRUNK: Names = {
    "blocks.{}.norm_1": "blocks.{}.attn_norm",
    "blocks.{}.attn.in_proj_weight": qkv("blocks.{{}}.attn.{}.weight"),
    "blocks.{}.attn.in_proj_bias": qkv("blocks.{{}}.attn.{}.bias"),
    "blocks.{}.attn.bias_k": To(("blocks.{}.attn.bias_k",), ones=2),
    "blocks.{}.attn.bias_v": To(("blocks.{}.attn.bias_v",), ones=2),
    "blocks.{}.attn.out_proj": "blocks.{}.attn.out",
    "blocks.{}.norm_2": "blocks.{}.mlp_norm",
    "blocks.{}.mlp.fc1": "blocks.{}.mlp.up",
    "blocks.{}.mlp.fc2": "blocks.{}.mlp.down",
}
_VISION: Names = {
    **_names("vision", "image", project="proj.1"),
    "modality_trunks.vision.pre_transformer_layer.0": "image.embed.norm",
}
_TEXT: Names = {
    **under("modality_trunks.text.", _TRUNK, "text.body."),
    "modality_preprocessors.text.token_embedding": "text.embed.vectors",
    "modality_preprocessors.text.pos_embed": To(("text.embed.positions.weight",), ones=1),
    "modality_preprocessors.text.mask": SPARE,
    "modality_heads.text.proj.0": "text.body.norm",
    "modality_heads.text.proj.1": "text.head",
    "modality_postprocessors.text.1.log_logit_scale": "scales.text",
}
_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "projection_dim": PUBLISHED_DIM}
_PATCHES = {**_DEFAULTS, "patch_size": 16, "num_hidden_layers": 12}
_SQUARE = {"height": 224, "width": 224, "stride": 16}

# Our name of a modality -> its key in config.json, and how its tower is read.
TOWERS: Mapping[str, tuple[str, Part[SignalEncoder | TextEncoder]]] = {
    "image": (
        "vision_config",
        Part(
            {
                **_DEFAULTS,
                "hidden_size": 1280,
                "num_hidden_layers": 32,
                "num_attention_heads": 16,
                "image_size": 224,
                "patch_size": 14,
                "num_frames": 2,
            },
            _vision,
            _VISION,
        ),
    ),
    "text": (
        "text_config",
        Part(
            {
                **_DEFAULTS,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "vocab_size": 49408,
                "max_position_embeddings": 77,
                "eos_token_id": None,  # the highest id
            },
            _text,
            _TEXT,
        ),
    ),
    "audio": (
        "audio_config",
        Part(
            {
                **_PATCHES,
                "hidden_size": 768,
                "num_attention_heads": 12,
                "height": 128,  # mel bins
                "width": 204,  # frames
                "stride": 10,
            },
            _grid,
            _names("audio", "audio"),
        ),
    ),
    "depth": (
        "depth_config",
        Part(
            {**_PATCHES, **_SQUARE, "hidden_size": 384, "num_attention_heads": 8},
            _grid,
            _names("depth", "depth", "depth_stem"),
        ),
    ),
    "thermal": (
        "thermal_config",
        Part(
            {**_PATCHES, **_SQUARE, "hidden_size": 768, "num_attention_heads": 12},
            _grid,
            _names("thermal", "thermal"),
        ),
    ),
    "imu": (
        "imu_config",
        Part(
            {
                **_DEFAULTS,
                "hidden_size": 512,
                "num_hidden_layers": 6,
                "num_attention_heads": 8,
                "num_channels": 6,
                "num_samples": 2000,
                "patch_size": 8,
            },
            _imu,
            _names("imu", "imu", "imu_stem", positions="pos_embed", head="3"),
        ),
    ),
}


def tower_configs(config: Config) -> dict[str, Config]:
    """What `config.json` says of every tower that is there, what it leaves out filled in."""
    dim = config.get("projection_dim", PUBLISHED_DIM)
    return {
        kind: {**part.defaults, "projection_dim": dim, **config[key]}
        for kind, (key, part) in TOWERS.items()
        if key in config
    }


def clip_towers(config: Config) -> dict[str, Any]:
    """What `config.json` says of towers like those of a CLIP, of which this is the configuration."""
    image = {**IMAGE_ENCODERS["clip_vision_model"].defaults, **config["vision_config"]}
    text = {**TEXT_ENCODERS["clip_text_model"].defaults, **config["text_config"]}
    shared = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps")
    of_text = (*shared, "vocab_size", "max_position_embeddings", "eos_token_id")
    told = {
        "vision_config": {key: image[key] for key in (*shared, "image_size", "patch_size")},
        "text_config": {key: text[key] for key in of_text},
    }
    if told["text_config"]["eos_token_id"] == 2:  # in CLIP's oldest files, for the highest
        told["text_config"]["eos_token_id"] = None
    return {"projection_dim": config.get("projection_dim", 512), **told}
