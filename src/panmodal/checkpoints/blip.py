"""BLIP's published layout: which parts an architecture has, their settings, and the names of their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from panmodal.checkpoints.names import BERT, CLIP_IMAGE, SPARE, Names, To, qkv, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, Config, Part, blocks, only
from panmodal.embeddings import PatchEmbedding, TokenEmbedding
from panmodal.encoders.image import ImageEncoder, NormedTokens
from panmodal.encoders.text import TextEncoder
from panmodal.errors import CheckpointError, suggest
from panmodal.language import LanguageModel
from panmodal.transformer import CrossBlock, TransformerConfig


@dataclass(frozen=True)
class Layout:
    """What an architecture has beside its image encoder."""

    contrast: bool = False  # projections of pictures and texts into one space
    match: bool = False  # a head that says whether a text fits a picture
    caption: bool = False  # a decoder that looks at pictures
    answer: bool = False  # a decoder that looks at questions, which have looked at pictures
    scale: bool = False  # of cosines
    first: bool = False  # the first generation's names, and pooling through a layer of its own


# `architectures` in config.json -> what there is. The last is this library's: what BLIP is pre-trained with.
ARCHITECTURES = {
    "BlipForConditionalGeneration": Layout(caption=True),
    "BlipForQuestionAnswering": Layout(answer=True),
    "BlipForImageTextRetrieval": Layout(contrast=True, match=True),
    "BlipModel": Layout(contrast=True, scale=True, first=True),
    "BlipForPreTraining": Layout(contrast=True, match=True, caption=True, scale=True),
}


def find_layout(config: Config) -> Layout:
    named = list(config.get("architectures") or ["none"])
    if len(named) != 1 or named[0] not in ARCHITECTURES:
        raise CheckpointError(f"config.json has architectures {named}{suggest(named[0], ARCHITECTURES)}")
    return ARCHITECTURES[named[0]]


def image_encoder(c: Config) -> ImageEncoder:
    """BLIP's, and BLIP-2's (EVA's ViT-g)."""
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], qkv_bias=c["qkv_bias"])
    return ImageEncoder(PatchEmbedding(trunk.dim, c["image_size"], c["patch_size"]), trunk)


def _clip_image(c: Config) -> ImageEncoder:
    made = IMAGE_ENCODERS["clip_vision_model"].build(c)
    return NormedTokens(made.embed, made.body.config, made.pool)


def _words(c: Config, causal: bool) -> tuple[TokenEmbedding, TransformerConfig, partial[CrossBlock]]:
    only(c, is_decoder=True)
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], pre_norm=False, final_norm=False, causal=causal)
    embed = TokenEmbedding(c["vocab_size"], trunk.dim, c["max_position_embeddings"], norm=trunk.make_norm())
    return embed, trunk, partial(CrossBlock, source_dim=c["encoder_hidden_size"])


def _encoder(c: Config) -> TextEncoder:
    embed, trunk, block = _words(c, causal=False)
    return TextEncoder(embed, trunk, "first", block=block)


def _decoder(c: Config) -> LanguageModel:
    embed, trunk, block = _words(c, causal=True)
    context = c["max_position_embeddings"]
    return LanguageModel(embed, trunk, context, c["tie_word_embeddings"], block, bert_head=True)


IMAGE_NAMES: Names = under(
    "vision_model.",
    {
        "embeddings.class_embedding": To(("embed.class_token",), ones=2),
        "embeddings.position_embedding": To(("embed.positions",), ones=1),
        "embeddings.patch_embedding": "embed.project",
        "encoder.layers.{}.layer_norm1": "body.blocks.{}.attn_norm",
        "encoder.layers.{}.self_attn.qkv": qkv("body.blocks.{{}}.attn.{}"),
        "encoder.layers.{}.self_attn.projection": "body.blocks.{}.attn.out",
        "encoder.layers.{}.layer_norm2": "body.blocks.{}.mlp_norm",
        "encoder.layers.{}.mlp.fc1": "body.blocks.{}.mlp.up",
        "encoder.layers.{}.mlp.fc2": "body.blocks.{}.mlp.down",
        "post_layernorm": "body.norm",
    },
)

_ENCODER_NAMES: Names = {
    **{theirs.removeprefix("[bert.]"): to for theirs, to in BERT.items() if theirs.startswith("[bert.]")},
    "encoder.layer.{}.crossattention.self.query": "body.blocks.{}.cross.q",
    "encoder.layer.{}.crossattention.self.key": "body.blocks.{}.cross.k",
    "encoder.layer.{}.crossattention.self.value": "body.blocks.{}.cross.v",
    "encoder.layer.{}.crossattention.output.dense": "body.blocks.{}.cross.out",
    "encoder.layer.{}.crossattention.output.LayerNorm": "body.blocks.{}.cross_norm",
    "pooler.dense": "head.dense",
}

_DECODER_NAMES: Names = {
    **under("bert.", _ENCODER_NAMES),
    "cls.predictions.transform.dense": "narrow.dense",
    "cls.predictions.transform.LayerNorm": "narrow.norm",
    "cls.predictions.bias": "head.bias",  # where the head is tied, the same as its own
    "cls.predictions.decoder": "head",
}


def decoder_names(names: Names, tied: bool) -> Names:
    """Where a decoder's tensors go; `tied` ones, which stand in the file twice, where the encoder's do."""
    placed = under("text_decoder.", names, "decoder.")
    shared = ("decoder.embed", "decoder.body.blocks.{}.cross", "decoder.body.blocks.{}.mlp")
    return {
        theirs: to.replace("decoder.", "text.", 1) if tied and isinstance(to, str) and to.startswith(shared) else to
        for theirs, to in placed.items()
    }


def heads_names(layout: Layout) -> Names:
    ours = ("image_projection", "text_projection", "match_head", "scale")
    first = ("visual_projection", "text_projection", "itm_head", "logit_scale")
    return dict(zip(first if layout.first else ("vision_proj", "text_proj", *first[2:]), ours, strict=True))


_WORDS = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "bos_token_id": 30522,
    "sep_token_id": 102,
    "tie_word_embeddings": True,
}

BLIP_IMAGE: dict[str, Part[ImageEncoder]] = {
    "blip_vision_model": Part(
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 384,
            "patch_size": 16,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "qkv_bias": True,
        },
        image_encoder,
        IMAGE_NAMES,
    ),
    "clip_vision_model": Part(IMAGE_ENCODERS["clip_vision_model"].defaults, _clip_image, CLIP_IMAGE),
}
BLIP_ENCODER = Part(_WORDS, _encoder, _ENCODER_NAMES)
BLIP_DECODER = Part(
    _WORDS,
    _decoder,
    lambda c: _DECODER_NAMES if c["tie_word_embeddings"] else {**_DECODER_NAMES, "cls.predictions.bias": SPARE},
)
