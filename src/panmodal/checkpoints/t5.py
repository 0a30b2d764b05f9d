"""T5 and Flan-T5 as published, within models that see."""

from __future__ import annotations

from collections.abc import Mapping

from panmodal.checkpoints.names import SPARE, Names, To, under
from panmodal.checkpoints.parts import Config, Part, blocks
from panmodal.embeddings import TokenEmbedding
from panmodal.encoder_decoder import Distances, EncoderDecoder


def _t5(c: Config) -> EncoderDecoder:
    first, _, second = c["feed_forward_proj"].partition("-")
    gated, named = first == "gated", second or first
    common = {
        "hidden_size": c["d_model"],
        "num_attention_heads": c["num_heads"],
        "intermediate_size": c["d_ff"],
        "hidden_act": "gelu_new" if gated and named == "gelu" else named,
    }
    encoder, decoder = (
        blocks(
            {**common, "num_hidden_layers": depth},
            head_dim=c["d_kv"], gated=gated, norm="rms", norm_eps=c["layer_norm_epsilon"],
            qkv_bias=False, bias=False, causal=causal,
        )
        for depth, causal in ((c["num_layers"], False), (c["num_decoder_layers"] or c["num_layers"], True))
    )  # fmt: skip
    tied = c["tie_word_embeddings"]
    scaled = c.get("scale_decoder_outputs", tied)  # which later files tell apart
    distances = Distances(c["relative_attention_num_buckets"], c["relative_attention_max_distance"])
    embed = TokenEmbedding(c["vocab_size"], encoder.dim)
    return EncoderDecoder(
        embed, encoder, decoder, distances, c["n_positions"], tied, scaled, c["decoder_start_token_id"]
    )


def _attention(theirs: str, ours: str) -> Mapping[str, str | To]:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"))}


def _stack(theirs: str, ours: str, last: int, gated: bool) -> Names:
    mlp = {"wi_0": "gate", "wi_1": "up", "wo": "down"} if gated else {"wi": "up", "wo": "down"}
    return {
        **under(
            f"{theirs}.block.{{}}.",
            {
                **_attention("layer.0.SelfAttention", "attn"),
                "layer.0.layer_norm": "attn_norm",
                **{f"layer.{last}.DenseReluDense.{name}": f"mlp.{to}" for name, to in mlp.items()},
                f"layer.{last}.layer_norm": "mlp_norm",
            },
            f"{ours}.blocks.{{}}.",
        ),
        f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias": f"{ours}.bias",
        f"{theirs}.final_layer_norm": f"{ours}.norm",
        f"{theirs}.embed_tokens": SPARE,  # the same as `shared`
    }


def _names(c: Config) -> Names:
    gated = c["feed_forward_proj"].startswith("gated-")
    return {
        "shared": "embed.vectors",
        "lm_head": "head",
        **_stack("encoder", "encoder", 1, gated),
        **_stack("decoder", "body", 2, gated),
        **under(
            "decoder.block.{}.layer.1.",
            {**_attention("EncDecAttention", "cross"), "layer_norm": "cross_norm"},
            "body.blocks.{}.",
        ),
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias": SPARE,
    }


T5 = Part(
    {
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "n_positions": 512,
        "decoder_start_token_id": 0,
    },
    _t5,
    _names,
)
