"""SAM 2's published layout: `facebook/sam2-hiera-*` and `facebook/sam2.1-hiera-*`, `model_type` "sam2", or "sam2_video"
where the parts that follow a thing through a video are in the file, too."""

from __future__ import annotations

from functools import reduce

from panmodal.checkpoints import sam
from panmodal.checkpoints.names import SPARE, Names, To, qkv, under
from panmodal.checkpoints.parts import Config, Part, activation, blocks, only
from panmodal.encoders.hiera import HieraEmbedding, HieraEncoder, Pyramid
from panmodal.errors import CheckpointError
from panmodal.generators.masks import FineMaskDecoder, PromptEncoder
from panmodal.transformer import TransformerConfig

TRUNK = {
    "hidden_size": 96,
    "num_channels": 3,
    "patch_kernel_size": (7, 7),
    "patch_stride": (4, 4),
    "window_positional_embedding_background_size": (7, 7),
    "num_query_pool_stages": 3,
    "blocks_per_stage": (1, 2, 7, 2),
    "embed_dim_per_stage": (96, 192, 384, 768),
    "num_attention_heads_per_stage": (1, 2, 4, 8),
    "window_size_per_stage": (8, 4, 14, 7),
    "global_attention_blocks": (5, 7, 9),
    "mlp_ratio": 4.0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}


def _encoder(c: Config) -> HieraEncoder:
    trunk = {**TRUNK, **(c["backbone_config"] or {})}
    depths, dims = trunk["blocks_per_stage"], trunk["embed_dim_per_stage"]
    only(c, fpn_kernel_size=1, fpn_stride=1, fpn_padding=0, num_feature_levels=3)
    only(trunk, query_stride=[2, 2], patch_padding=[n // 2 for n in trunk["patch_kernel_size"]])
    if trunk["num_query_pool_stages"] != len(depths) - 1 or [*c["backbone_channel_list"]] != [*dims][::-1]:
        raise CheckpointError(
            f"config.json has stages of the widths {list(dims)}, {trunk['num_query_pool_stages']} of which halve the "
            f"grid, and features of the widths {list(c['backbone_channel_list'])}; panmodal reads those in which all "
            "but the first halve it, and whose features are theirs, from the last to the first"
        )
    stages = [
        TransformerConfig(
            dim, depth, heads, mlp_dim=int(dim * trunk["mlp_ratio"]), activation=activation(trunk["hidden_act"]),
            norm_eps=trunk["layer_norm_eps"], final_norm=False,
        )
        for dim, depth, heads in zip(dims, depths, trunk["num_attention_heads_per_stage"], strict=True)
    ]  # fmt: skip
    windows = trunk["window_size_per_stage"]
    embed = HieraEmbedding(
        trunk["hidden_size"], trunk["num_channels"], trunk["patch_kernel_size"][0], trunk["patch_stride"][0],
        tuple(trunk["window_positional_embedding_background_size"]), windows[0],
    )  # fmt: skip
    neck = Pyramid(dims, c["fpn_hidden_size"], c["fpn_top_down_levels"])
    return HieraEncoder(embed, stages, windows, trunk["global_attention_blocks"], neck)


def _encoder_names(c: Config) -> Names:
    depths = {**TRUNK, **(c["backbone_config"] or {})}["blocks_per_stage"]
    names: dict[str, str | To] = {
        "backbone.patch_embed.projection": "embed.project",
        "backbone.pos_embed": To(("embed.background",), ones=1),
        "backbone.pos_embed_window": To(("embed.repeated",), ones=1),
        # the neck counts its levels from the coarsest
        **{f"neck.convs.{len(depths) - 1 - level}": f"neck.levels.{level}" for level in range(len(depths))},
    }
    places = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    for number, (stage, block) in enumerate(places):
        theirs, ours = f"backbone.blocks.{number}", f"stages.{stage}.blocks.{block}"
        names |= {
            f"{theirs}.layer_norm1": f"{ours}.attn_norm",
            f"{theirs}.attn.qkv": qkv(f"{ours}.attn.{{}}"),
            f"{theirs}.attn.proj": f"{ours}.attn.out",
            f"{theirs}.layer_norm2": f"{ours}.mlp_norm",
            f"{theirs}.mlp.proj_in": f"{ours}.mlp.up",
            f"{theirs}.mlp.proj_out": f"{ours}.mlp.down",
            f"{theirs}.proj": f"{ours}.widen",
        }
    return names


def _decoder(c: Config) -> FineMaskDecoder:
    only(c, hidden_act="gelu", num_hidden_layers=2, dynamic_multimask_via_stability=True)
    return FineMaskDecoder(
        blocks({**c, "intermediate_size": c["mlp_dim"], "hidden_act": "relu"}, norm_eps=1e-5),
        c["attention_downsample_rate"],
        c["num_multimask_outputs"],
        c["iou_head_hidden_dim"],
        c["iou_head_depth"],
        c["dynamic_multimask_stability_delta"],
        c["dynamic_multimask_stability_thresh"],
    )


ENCODER: Part[HieraEncoder] = Part(
    {
        "backbone_config": None,
        "backbone_channel_list": (768, 384, 192, 96),
        "fpn_hidden_size": 256,
        "fpn_top_down_levels": (2, 3),
    },
    _encoder,
    _encoder_names,
)

PROMPTS: Part[PromptEncoder] = Part(
    sam.PROMPTS.defaults,
    sam.PROMPTS.make,
    {
        **{theirs: to for theirs, to in sam.PROMPTS.table({}).items() if not theirs.startswith("point_embed.")},
        "point_embed.weight": To(tuple(f"kinds.{kind}" for kind in range(4))),
    },
)

RENAMED = {".out_proj": ".o_proj", ".mlp.lin1": ".mlp.proj_in", ".mlp.lin2": ".mlp.proj_out"}
DECODER: Part[FineMaskDecoder] = Part(
    {
        **sam.DECODER.defaults,
        "hidden_act": "gelu",
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    },
    _decoder,
    {
        **{
            reduce(lambda name, old: name.replace(old, RENAMED[old]), RENAMED, n): to
            for n, to in sam.DECODER.table({}).items()
        },
        "obj_score_token.weight": "thing_token",
        **dict.fromkeys(sam.perceptron("pred_obj_score_head", ""), SPARE),
        "conv_s0": "fine.0",
        "conv_s1": "fine.1",
    },
)

# What follows a thing through a video: written back, and not used.
_MEMORY = "memory_attention.layers.{}"
_FUSER = "memory_encoder.memory_fuser.layers.{}"
OF_VIDEOS: Names = dict.fromkeys(
    (
        *(f"{_MEMORY}.{at}.{part}_proj" for at in ("self_attn", "cross_attn_image") for part in "qkvo"),
        *(f"{_MEMORY}.{part}" for part in ("layer_norm1", "layer_norm2", "layer_norm3", "linear1", "linear2")),
        "memory_attention.layer_norm",
        "memory_encoder.feature_projection",
        "memory_encoder.mask_downsampler.final_conv",
        "memory_encoder.mask_downsampler.layers.{}.conv",
        "memory_encoder.mask_downsampler.layers.{}.layer_norm",
        *(
            f"{_FUSER}.{part}"
            for part in ("depthwise_conv", "layer_norm", "pointwise_conv1", "pointwise_conv2", "scale")
        ),
        "memory_encoder.projection",
        "mask_downsample",
        *sam.perceptron("object_pointer_proj", ""),
        "memory_temporal_positional_encoding",
        "temporal_positional_encoding_projection_layer",
        "no_memory_positional_encoding",
        "no_object_pointer",
        "occlusion_spatial_embedding_parameter",
    ),
    SPARE,
)


def read(config: Config) -> tuple[HieraEncoder, PromptEncoder, FineMaskDecoder, Names]:
    """The three parts of a model, and the names of their tensors."""
    seen, asked, drawn = (config.get(f"{part}_config") or {} for part in ("vision", "prompt_encoder", "mask_decoder"))
    encoder, prompts, decoder = ENCODER.build(seen), PROMPTS.build(asked), DECODER.build(drawn)
    widths = {encoder.neck.dim, prompts.dim, decoder.dim}
    if len(widths) > 1:
        raise CheckpointError(
            f"config.json gives image encoder, prompts and decoder the widths {sorted(widths)}; they must agree"
        )
    names = {
        **under("vision_encoder.", ENCODER.table(seen), "encoder."),
        "no_memory_embedding": To(("no_memory",), ones=1),
        "shared_image_embedding.positional_embedding": "prompts.waves",
        **under("prompt_encoder.", PROMPTS.table(asked), "prompts."),
        **under("mask_decoder.", DECODER.table(drawn), "decoder."),
        **(OF_VIDEOS if config["model_type"] == "sam2_video" else {}),
    }
    return encoder, prompts, decoder, names
