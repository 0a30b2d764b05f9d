"""BLIP-2 and InstructBLIP as published: their image encoder (EVA's ViT-g) and their Q-Former."""

from __future__ import annotations

from panmodal.checkpoints.blip import IMAGE_NAMES, image_encoder
from panmodal.checkpoints.names import SPARE, Names, To, under
from panmodal.checkpoints.parts import Config, Part, blocks, only
from panmodal.connectors.qformer import QFormer
from panmodal.embeddings import TokenEmbedding
from panmodal.encoders.image import ImageEncoder


def _qformer(c: Config) -> QFormer:
    only(c, position_embedding_type="absolute")
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], pre_norm=False, final_norm=False)
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, c["max_position_embeddings"]) if c["reads_text"] else None
    return QFormer(trunk, c["num_query_tokens"], c["source_dim"], c["cross_attention_frequency"], embed)


_QFORMER: Names = {
    "query_tokens": To(("queries",), ones=1),
    **under(
        "qformer.encoder.layer.{}.",
        {
            "attention.attention.query": "attn.q",
            "attention.attention.key": "attn.k",
            "attention.attention.value": "attn.v",
            "attention.output.dense": "attn.out",
            "attention.output.LayerNorm": "attn_norm",
            "crossattention.attention.query": "cross.q",
            "crossattention.attention.key": "cross.k",
            "crossattention.attention.value": "cross.v",
            "crossattention.output.dense": "cross.out",
            "crossattention.output.LayerNorm": "cross_norm",
            "intermediate_query.dense": "mlp.up",
            "output_query.dense": "mlp.down",
            "output_query.LayerNorm": "mlp_norm",
            "intermediate.dense": "text_mlp.up",
            "output.dense": "text_mlp.down",
            "output.LayerNorm": "text_norm",
        },
        "body.blocks.{}.",
    ),
}

BLIP2_QFORMER: Names = {
    **_QFORMER,
    "qformer.layernorm": "norm",
    "embeddings.word_embeddings": "embed.vectors",
    "embeddings.position_embeddings": "embed.positions",
    "embeddings.position_ids": SPARE,
}

INSTRUCT_QFORMER: Names = {
    **_QFORMER,
    "qformer.embeddings.layernorm": "norm",
    "qformer.embeddings.word_embeddings": "embed.vectors",
    "qformer.embeddings.position_embeddings": "embed.positions",
    "qformer.embeddings.position_ids": SPARE,
}

# The authors' checkpoint of MiniGPT-4's linear map; what they froze stands in it as buffers at most.
MINIGPT4: Names = {
    "llama_proj": "project",
    "Qformer.bert.embeddings.position_ids": SPARE,
    "llama_model.model.layers.{}.self_attn.rotary_emb.inv_freq": SPARE,
}

VISION = Part(
    {
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
    },
    image_encoder,
    IMAGE_NAMES,
)

_QFORMER_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "cross_attention_frequency": 2,
}
QFORMERS = {  # by the model_type of the whole
    "blip-2": Part(_QFORMER_DEFAULTS, _qformer, BLIP2_QFORMER),
    "instructblip": Part(_QFORMER_DEFAULTS, _qformer, INSTRUCT_QFORMER),
}


def build_seeing(config: Config, reads_text: bool) -> tuple[ImageEncoder, QFormer, Names]:
    """What a BLIP-2's configuration says of its image encoder and its Q-Former, and the names of their tensors,
    as parts called `encoder` and `qformer`."""
    vision, queries = config["vision_config"], QFORMERS[config["model_type"]]
    encoder = VISION.build(vision)
    asked = {
        **config["qformer_config"],
        "num_query_tokens": config.get("num_query_tokens", 32),
        "source_dim": encoder.dim,
        "reads_text": reads_text,
    }
    names = {
        **under("", VISION.table(vision), "encoder."),
        **under("", queries.table(asked), "qformer."),
    }
    return encoder, queries.build(asked), names
