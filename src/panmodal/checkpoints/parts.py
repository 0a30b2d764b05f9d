"""Config readers: what a published `config.json` says of a tower -> the module; language models are in `language.py`.

A reader raises CheckpointError for a setting that it would otherwise have to ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from panmodal.checkpoints import names
from panmodal.checkpoints.names import Names
from panmodal.embeddings import PatchEmbedding, TokenEmbedding
from panmodal.encoders.image import AttentionPool, FirstToken, ImageEncoder, ScaledBlock
from panmodal.encoders.text import TextEncoder
from panmodal.errors import CheckpointError, suggest
from panmodal.transformer import TransformerConfig

Config = Mapping[str, Any]
M = TypeVar("M", bound=nn.Module)

ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}


@dataclass(frozen=True)
class Part(Generic[M]):
    """How one `model_type` is read: the settings that its files may leave out, the module, and the
    names of its tensors."""

    defaults: Config
    make: Callable[[Config], M]
    names: Names | Callable[[Config], Names]

    def build(self, config: Config) -> M:
        return self.make({**self.defaults, **config})

    def table(self, config: Config) -> Names:
        return self.names({**self.defaults, **config}) if callable(self.names) else self.names


def find_part(parts: Mapping[str, Part[M]], config: Config, default: str = "") -> Part[M]:
    kind = config.get("model_type", default)
    if kind not in parts:
        raise CheckpointError(f"panmodal does not read model_type {kind!r} here{suggest(str(kind), parts)}")
    return parts[kind]


def only(config: Config, **readable: Any) -> None:
    """Refuses a setting whose value the library would ignore."""
    for key, value in readable.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"config.json sets {key}={config[key]!r}; panmodal reads {value!r} only")


def activation(name: str) -> str:
    if name not in ACTIVATION_NAMES:
        raise CheckpointError(f"config.json names the activation {name!r}{suggest(name, ACTIVATION_NAMES)}")
    return ACTIVATION_NAMES[name]


def blocks(c: Config, **switches: Any) -> TransformerConfig:
    """The settings that most formats share a name for."""
    return TransformerConfig(
        dim=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=c["num_attention_heads"],
        mlp_dim=c["intermediate_size"],
        activation=activation(c["hidden_act"]),
        **switches,
    )


def _clip_image(c: Config) -> ImageEncoder:
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], final_norm=False)
    embed = PatchEmbedding(
        trunk.dim, c["image_size"], c["patch_size"], c["num_channels"], bias=False, norm=trunk.make_norm()
    )
    return ImageEncoder(embed, trunk, FirstToken(trunk.make_norm()))


def _clip_text(c: Config) -> TextEncoder:
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], causal=True)
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, c["max_position_embeddings"])
    # Configurations from before the end token was recorded say 2; the highest id is what they mean.
    end_id = None if c["eos_token_id"] == 2 else c["eos_token_id"]
    return TextEncoder(embed, trunk, "end", end_id=end_id)


def _siglip_image(c: Config) -> ImageEncoder:
    trunk = blocks(c, norm_eps=c["layer_norm_eps"])
    embed = PatchEmbedding(trunk.dim, c["image_size"], c["patch_size"], c["num_channels"], class_token=False)
    return ImageEncoder(embed, trunk, AttentionPool(trunk) if c["vision_use_head"] else None)


def _siglip_text(c: Config) -> TextEncoder:
    trunk = blocks(c, norm_eps=c["layer_norm_eps"])
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, c["max_position_embeddings"])
    return TextEncoder(embed, trunk, "last", nn.Linear(trunk.dim, c.get("projection_size") or trunk.dim))


def _vit(c: Config) -> ImageEncoder:
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], qkv_bias=c["qkv_bias"])
    embed = PatchEmbedding(trunk.dim, c["image_size"], c["patch_size"], c["num_channels"])
    return ImageEncoder(embed, trunk, FirstToken())


def _dinov2(c: Config) -> ImageEncoder:
    only(c, apply_layernorm=True)
    mlp_dim, gated = int(c["hidden_size"] * c["mlp_ratio"]), c["use_swiglu_ffn"]
    if gated:  # two thirds, for the third matrix, rounded up to a multiple of eight
        mlp_dim = (int(mlp_dim * 2 / 3) + 7) // 8 * 8
    c = {**c, "intermediate_size": mlp_dim, "hidden_act": "silu" if gated else c["hidden_act"]}
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], qkv_bias=c["qkv_bias"], gated=gated)
    embed = PatchEmbedding(trunk.dim, c["image_size"], c["patch_size"], c["num_channels"])
    return ImageEncoder(embed, trunk, FirstToken(), block=ScaledBlock)


def _bert(c: Config) -> TextEncoder:
    only(c, position_embedding_type="absolute", is_decoder=False)
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], pre_norm=False, final_norm=False)
    embed = TokenEmbedding(
        c["vocab_size"], trunk.dim, c["max_position_embeddings"], c["type_vocab_size"], trunk.make_norm()
    )
    return TextEncoder(embed, trunk, "mean")


_CLIP = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_PICTURE = {"num_channels": 3, "image_size": 224}
_VIT = {
    **_PICTURE,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "qkv_bias": True,
}
IMAGE_ENCODERS: dict[str, Part[ImageEncoder]] = {
    "clip_vision_model": Part(
        {
            **_CLIP,
            **_PICTURE,
            "patch_size": 32,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
        },
        _clip_image,
        names.CLIP_IMAGE,
    ),
    "siglip_vision_model": Part(
        {**_SIGLIP, **_PICTURE, "patch_size": 16, "vision_use_head": True}, _siglip_image, names.SIGLIP_IMAGE
    ),
    "vit": Part({**_VIT, "patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12}, _vit, names.VIT),
    "dinov2": Part(
        {**_VIT, "patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": False, "layer_norm_eps": 1e-6},
        _dinov2,
        lambda c: names.DINOV2_GATED if c["use_swiglu_ffn"] else names.DINOV2,
    ),
}

TEXT_ENCODERS: dict[str, Part[TextEncoder]] = {
    "clip_text_model": Part(
        {
            **_CLIP,
            "vocab_size": 49408,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
        },
        _clip_text,
        names.CLIP_TEXT,
    ),
    "siglip_text_model": Part(
        {**_SIGLIP, "vocab_size": 32000, "max_position_embeddings": 64}, _siglip_text, names.SIGLIP_TEXT
    ),
    "bert": Part(
        {
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "hidden_act": "gelu",
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
        },
        _bert,
        names.BERT,
    ),
}
