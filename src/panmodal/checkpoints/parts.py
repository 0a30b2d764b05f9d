"""Config readers: what a published `config.json` says of a tower or a language model -> the module.

A reader raises CheckpointError for a setting that it would otherwise have to ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from panmodal.checkpoints import names
from panmodal.checkpoints.names import Names
from panmodal.embeddings import PatchEmbedding, Rope, TokenEmbedding
from panmodal.encoders.image import AttentionPool, FirstToken, ImageEncoder, ScaledBlock
from panmodal.encoders.text import TextEncoder
from panmodal.errors import CheckpointError, suggest
from panmodal.language import LanguageModel
from panmodal.transformer import TransformerConfig

Config = Mapping[str, Any]
M = TypeVar("M", bound=nn.Module)

ACTIVATION_NAMES = {
    "gelu": "gelu",
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


def rope(config: Config) -> Rope:
    """Rotary settings, in the form of either generation of config.json."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, factor=scaling["factor"])
    if kind == "llama3":
        return Rope(
            theta,
            scaling["factor"],
            scaling["low_freq_factor"],
            scaling["high_freq_factor"],
            scaling["original_max_position_embeddings"],
        )
    raise CheckpointError(f"config.json has rotary scaling {kind!r}; panmodal reads default, linear and llama3")


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


def _gpt2(c: Config) -> LanguageModel:
    only(c, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    blocks = TransformerConfig(
        dim=c["n_embd"],
        depth=c["n_layer"],
        heads=c["n_head"],
        mlp_dim=c["n_inner"],
        activation=activation(c["activation_function"]),
        norm_eps=c["layer_norm_epsilon"],
        causal=True,
    )
    embed = TokenEmbedding(c["vocab_size"], blocks.dim, c["n_positions"])
    return LanguageModel(embed, blocks, c["n_positions"], c["tie_word_embeddings"])


def _opt(c: Config) -> LanguageModel:
    only(c, enable_bias=True, layer_norm_elementwise_affine=True, _remove_final_layer_norm=False)
    c = {**c, "intermediate_size": c["ffn_dim"], "hidden_act": c["activation_function"]}
    before = c["do_layer_norm_before"]
    trunk = blocks(c, norm_eps=1e-5, pre_norm=before, final_norm=before, causal=True)
    context = c["max_position_embeddings"]
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, context, offset=2, word_dim=c["word_embed_proj_dim"])
    return LanguageModel(embed, trunk, context, c["tie_word_embeddings"])


def _llama(c: Config, **switches: Any) -> LanguageModel:
    switches = {"qkv_bias": False, "window": None, **switches}
    trunk = blocks(
        c,
        kv_heads=c["num_key_value_heads"],
        head_dim=c["head_dim"],
        gated=True,
        norm="rms",
        norm_eps=c["rms_norm_eps"],
        bias=False,
        causal=True,
        rope=rope(c),
        **switches,
    )
    embed = TokenEmbedding(c["vocab_size"], trunk.dim)
    return LanguageModel(embed, trunk, c["max_position_embeddings"], c["tie_word_embeddings"])


def _plain_llama(c: Config) -> LanguageModel:
    only(c, attention_bias=False, mlp_bias=False)
    return _llama(c)


def _qwen2(c: Config) -> LanguageModel:
    only(c, use_sliding_window=False)
    return _llama(c, qkv_bias=True)


def _qwen3(c: Config) -> LanguageModel:
    only(c, use_sliding_window=False, attention_bias=False)
    return _llama(c, qk_norm=True)


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
_LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
_QWEN = {**_LLAMA, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}

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

LANGUAGE_MODELS: dict[str, Part[LanguageModel]] = {
    "gpt2": Part(
        {
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
        },
        _gpt2,
        names.GPT2,
    ),
    "opt": Part(
        {
            "vocab_size": 50272,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "ffn_dim": 3072,
            "max_position_embeddings": 2048,
            "activation_function": "relu",
            "do_layer_norm_before": True,
            "word_embed_proj_dim": None,
            "tie_word_embeddings": True,
        },
        _opt,
        names.OPT,
    ),
    "llama": Part(
        {**_LLAMA, "vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
        _plain_llama,
        names.LLAMA,
    ),
    "mistral": Part(
        {
            **_LLAMA,
            "vocab_size": 32000,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096 * 32,
            "sliding_window": 4096,
        },
        lambda c: _llama(c, window=c["sliding_window"]),
        names.LLAMA,
    ),
    "qwen2": Part({**_QWEN, "num_key_value_heads": 32}, _qwen2, names.LLAMA),
    "qwen3": Part({**_QWEN, "num_key_value_heads": 32, "head_dim": 128}, _qwen3, names.LLAMA),
}
