"""SAM's published layout: `facebook/sam-vit-*`, `model_type` "sam"."""

from __future__ import annotations

from panmodal.checkpoints.names import SPARE, Names, To, qkv, under
from panmodal.checkpoints.parts import Config, Part, blocks, only
from panmodal.encoders.grid import GridEmbedding, GridEncoder
from panmodal.errors import CheckpointError
from panmodal.generators.masks import MaskDecoder, PromptEncoder


def _encoder(c: Config) -> GridEncoder:
    only(c, use_abs_pos=True, use_rel_pos=True)
    c = {**c, "intermediate_size": c["mlp_dim"] or int(c["hidden_size"] * c["mlp_ratio"])}
    trunk = blocks(c, norm_eps=c["layer_norm_eps"], final_norm=False, qkv_bias=c["qkv_bias"])
    embed = GridEmbedding(trunk.dim, c["image_size"], c["patch_size"], c["num_channels"])
    return GridEncoder(embed, trunk, c["window_size"], c["global_attn_indexes"], c["output_channels"])


def _prompts(c: Config) -> PromptEncoder:
    only(c, hidden_act="gelu", num_point_embeddings=4)
    return PromptEncoder(c["hidden_size"], c["image_size"], c["mask_input_channels"], c["layer_norm_eps"])


def _decoder(c: Config) -> MaskDecoder:
    return MaskDecoder(
        blocks({**c, "intermediate_size": c["mlp_dim"]}, norm_eps=c["layer_norm_eps"]),
        c["attention_downsample_rate"],
        c["num_multimask_outputs"],
        c["iou_head_hidden_dim"],
        c["iou_head_depth"],
    )


def perceptron(theirs: str, ours: str) -> Names:
    return {
        f"{theirs}.proj_in": f"{ours}.first",
        f"{theirs}.layers.{{}}": f"{ours}.middle.{{}}",
        f"{theirs}.proj_out": f"{ours}.last",
    }


def _attention(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{part}_proj": f"{ours}.{part}" for part in ("q", "k", "v", "out")}


ENCODER: Part[GridEncoder] = Part(
    {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mlp_dim": None,
        "mlp_ratio": 4.0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "image_size": 1024,
        "patch_size": 16,
        "num_channels": 3,
        "window_size": 14,
        "global_attn_indexes": (2, 5, 8, 11),
        "output_channels": 256,
    },
    _encoder,
    {
        "patch_embed.projection": "embed.project",
        "pos_embed": To(("embed.positions",), ones=1),
        "layers.{}.layer_norm1": "body.blocks.{}.attn_norm",
        "layers.{}.attn.qkv": qkv("body.blocks.{{}}.attn.{}"),
        "layers.{}.attn.proj": "body.blocks.{}.attn.out",
        "layers.{}.attn.rel_pos_h": "body.blocks.{}.attn.rows",
        "layers.{}.attn.rel_pos_w": "body.blocks.{}.attn.cols",
        "layers.{}.layer_norm2": "body.blocks.{}.mlp_norm",
        "layers.{}.mlp.lin1": "body.blocks.{}.mlp.up",
        "layers.{}.mlp.lin2": "body.blocks.{}.mlp.down",
        "neck.conv1": "neck.narrow",
        "neck.layer_norm1": "neck.narrow_norm",
        "neck.conv2": "neck.mix",
        "neck.layer_norm2": "neck.mix_norm",
    },
)

PROMPTS: Part[PromptEncoder] = Part(
    {
        "hidden_size": 256,
        "image_size": 1024,
        "mask_input_channels": 16,
        "layer_norm_eps": 1e-6,
    },
    _prompts,
    {
        "point_embed.{}.weight": "kinds.{}",
        "not_a_point_embed.weight": "nowhere",
        "no_mask_embed.weight": "no_mask",
        "mask_embed.conv1": "mask.first",
        "mask_embed.layer_norm1": "mask.first_norm",
        "mask_embed.conv2": "mask.second",
        "mask_embed.layer_norm2": "mask.second_norm",
        "mask_embed.conv3": "mask.widen",
        "shared_embedding.positional_embedding": SPARE,  # once more what stands under shared_image_embedding
    },
)

DECODER: Part[MaskDecoder] = Part(
    {
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "mlp_dim": 2048,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-6,
        "attention_downsample_rate": 2,
        "num_multimask_outputs": 3,
        "iou_head_hidden_dim": 256,
        "iou_head_depth": 3,
    },
    _decoder,
    {
        "iou_token.weight": "iou_token",
        "mask_tokens.weight": "mask_tokens",
        **_attention("transformer.layers.{}.self_attn", "blocks.{}.attn"),
        "transformer.layers.{}.layer_norm1": "blocks.{}.attn_norm",
        **_attention("transformer.layers.{}.cross_attn_token_to_image", "blocks.{}.cross"),
        "transformer.layers.{}.layer_norm2": "blocks.{}.cross_norm",
        "transformer.layers.{}.mlp.lin1": "blocks.{}.mlp.up",
        "transformer.layers.{}.mlp.lin2": "blocks.{}.mlp.down",
        "transformer.layers.{}.layer_norm3": "blocks.{}.mlp_norm",
        **_attention("transformer.layers.{}.cross_attn_image_to_token", "blocks.{}.back"),
        "transformer.layers.{}.layer_norm4": "blocks.{}.back_norm",
        **_attention("transformer.final_attn_token_to_image", "cross"),
        "transformer.layer_norm_final_attn": "norm",
        "upscale_conv1": "enlarge",
        "upscale_layer_norm": "enlarge_norm",
        "upscale_conv2": "enlarge_again",
        **perceptron("output_hypernetworks_mlps.{}", "filters.{}"),
        **perceptron("iou_prediction_head", "iou"),
    },
)


def read(config: Config) -> tuple[GridEncoder, PromptEncoder, MaskDecoder, Names]:
    """The three parts of a model, and the names of their tensors."""
    seen, asked, drawn = (config.get(f"{part}_config") or {} for part in ("vision", "prompt_encoder", "mask_decoder"))
    encoder, prompts, decoder = ENCODER.build(seen), PROMPTS.build(asked), DECODER.build(drawn)
    widths = {encoder.neck.dim, prompts.dim, decoder.dim}
    size = encoder.embed.grid * encoder.embed.project.kernel_size[0]
    if len(widths) > 1 or size != prompts.image_size:
        raise CheckpointError(
            f"config.json gives image encoder, prompts and decoder the widths {sorted(widths)} and pictures of {size} "
            f"and {prompts.image_size} pixels; they must agree"
        )
    names = {
        **under("vision_encoder.", ENCODER.table(seen), "encoder."),
        "shared_image_embedding.positional_embedding": "prompts.waves",
        **under("prompt_encoder.", PROMPTS.table(asked), "prompts."),
        **under("mask_decoder.", DECODER.table(drawn), "decoder."),
    }
    return encoder, prompts, decoder, names
