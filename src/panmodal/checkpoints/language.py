"""Config readers of language models: what a published `config.json` says of one -> the module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from panmodal.checkpoints import names
from panmodal.checkpoints.parts import Config, Part, activation, blocks, find_part, only
from panmodal.embeddings import Rope, TokenEmbedding
from panmodal.errors import CheckpointError
from panmodal.foreign import ForeignLanguage, knows
from panmodal.language import LanguageModel, ParallelBlock
from panmodal.transformer import Block, TransformerConfig


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


def _gpt_neox(c: Config) -> LanguageModel:
    only(c, attention_bias=True)
    told: Config = c.get("rope_parameters") or {}
    turned = rope({**c, "rope_theta": c["rotary_emb_base"]})
    turned = replace(turned, share=told.get("partial_rotary_factor", c["rotary_pct"]))
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], causal=True, rope=turned)
    embed = TokenEmbedding(c["vocab_size"], trunk.dim)
    kind = ParallelBlock if c["use_parallel_residual"] else Block
    return LanguageModel(embed, trunk, c["max_position_embeddings"], c["tie_word_embeddings"], kind)


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


def _mpt(c: Config) -> LanguageModel:
    only(c, no_bias=True, logit_scale=None)
    attention = c["attn_config"] or {}
    only(
        attention,
        alibi=True,
        attn_type="multihead_attention",
        prefix_lm=False,
        attn_uses_sequence_id=False,
        qk_ln=False,
        clip_qkv=None,
        softmax_scale=None,
    )
    if c["norm_type"] not in ("layernorm", "low_precision_layernorm"):
        raise CheckpointError(f"config.json sets norm_type={c['norm_type']!r}; panmodal reads LayerNorm only")
    blocks = TransformerConfig(
        dim=c["d_model"],
        depth=c["n_layers"],
        heads=c["n_heads"],
        mlp_dim=c["expansion_ratio"] * c["d_model"],
        norm="layer_no_bias",
        norm_eps=c["layer_norm_epsilon"],
        qkv_bias=False,
        bias=False,
        causal=True,
        alibi=attention.get("alibi_bias_max", 8),
    )
    embed = TokenEmbedding(c["vocab_size"], blocks.dim)
    return LanguageModel(embed, blocks, c["max_seq_len"], c["tie_word_embeddings"])


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
    "gpt_neox": Part(
        {
            "vocab_size": 50432,
            "hidden_size": 6144,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "intermediate_size": 24576,
            "max_position_embeddings": 2048,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "rotary_pct": 0.25,
            "rotary_emb_base": 10000,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
        },
        _gpt_neox,
        lambda c: names.gpt_neox(c["num_attention_heads"]),
    ),
    "mpt": Part(
        {
            "vocab_size": 50368,
            "d_model": 2048,
            "n_layers": 24,
            "n_heads": 16,
            "expansion_ratio": 4,
            "max_seq_len": 2048,
            "layer_norm_epsilon": 1e-5,
            "norm_type": "low_precision_layernorm",
            "attn_config": None,
            "tie_word_embeddings": True,
        },
        _mpt,
        names.MPT,
    ),
}


def find_language(config: Config, default: str = "") -> Part[LanguageModel]:
    """How a language model is read: by the core, or, where the core does not know its `model_type`, by `transformers`.
    Raises CheckpointError if neither does."""
    kind = config.get("model_type", default)
    if kind in LANGUAGE_MODELS:
        return find_part(LANGUAGE_MODELS, config, default)
    if knows(kind):
        return Part({}, ForeignLanguage, _same_names)
    raise CheckpointError(
        f"config.json has a language model of model_type {kind!r}; panmodal reads {', '.join(sorted(LANGUAGE_MODELS))} "
        "and, with panmodal[hf] installed, all causal ones of transformers"
    )


def _same_names(config: Config) -> names.Names:
    with torch.device("meta"):
        return names.as_named(ForeignLanguage(config).model, "model.")
