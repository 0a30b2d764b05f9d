"""Flamingos on disk: IDEFICS-1's published layout, and one of ours with OpenFlamingo's names, in which the parts
that its authors' `checkpoint.pt` leaves out stand, too."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.language import LANGUAGE_MODELS
from panmodal.checkpoints.names import CLIP_IMAGE, LLAMA, SPARE, Names, To, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, Config, find_part, only
from panmodal.checkpoints.store import read_pickle
from panmodal.connectors.gated import GatedLayer, PromptGate, add_gates
from panmodal.connectors.resampler import Resampler, unbiased
from panmodal.encoders.image import ImageEncoder, features_only
from panmodal.errors import CheckpointError
from panmodal.language import AddedHead, AddedWords, LanguageModel
from panmodal.transformer import TransformerConfig

RESAMPLER = {"latents": 64, "depth": 6, "heads": 8, "head_dim": 64}  # OpenFlamingo's; heads also of the gates


@dataclass(frozen=True)
class Pieces:
    """What a configuration describes: a Flamingo's parts, the gates in their places already."""

    encoder: ImageEncoder
    resampler: nn.Module
    gates: nn.ModuleList
    language: LanguageModel
    image_token: int
    drop_first: bool
    names: Names


def read_idefics(config: Config) -> Pieces:
    """IDEFICS-1: a LLaMA with a gate before every k-th block from the first on, and a ViT as CLIP's, all of whose
    tokens are used."""
    only(config, alpha_type="float", tie_word_embeddings=False)
    vision = {**_IDEFICS_VISION, **config.get("vision_config", {})}
    encoder = features_only(IMAGE_ENCODERS["clip_vision_model"].build({**vision, "hidden_size": vision["embed_dim"]}))
    language = LANGUAGE_MODELS["llama"].build(config)
    words, added = language.head.out_features, config.get("additional_vocab_size", 0)
    if added:
        language.embed.vectors = AddedWords(words, added, language.dim)
        language.head = AddedHead(language.dim, words, added)
    blocks = language.body.config
    sizes = {**_IDEFICS_RESAMPLER, **config.get("perceiver_config", {})}
    resampler: nn.Module = nn.Identity()
    if config.get("use_resampler", False):
        shape = TransformerConfig(
            encoder.dim,
            sizes["resampler_depth"],
            sizes["resampler_n_heads"],
            head_dim=sizes["resampler_head_dim"],
            activation="relu",
            norm_eps=1e-5,
            qkv_bias=False,
            bias=False,
            qk_norm=sizes["qk_layer_norms_perceiver"],
        )
        resampler = Resampler(shape, sizes["resampler_n_latents"])
    gate = TransformerConfig(
        blocks.dim,
        1,
        blocks.heads,
        mlp_dim=blocks.mlp_dim,
        activation=blocks.activation,
        gated=True,
        norm="rms",
        norm_eps=blocks.norm_eps,
        qkv_bias=False,
        bias=False,
        qk_norm=config.get("qk_layer_norms", False),
    )
    every = config.get("cross_layer_interval", 1)
    gates = nn.ModuleList(GatedLayer(gate, encoder.dim) for _ in range(blocks.depth // every))
    add_gates(language, gates, every, first=0)
    # The additional words begin with one that goes around a picture and one that stands for it.
    return Pieces(encoder, resampler, gates, language, words + 1, False, IDEFICS)


def read_flamingo(config: Config) -> Pieces:
    """Any image encoder and language model; a gate before every k-th block, from the k-th on, or prompts for the last
    `adapter_layers`. The class token, where there is one, is left out."""
    vision, text = config["vision_config"], config["text_config"]
    seen, spoken = find_part(IMAGE_ENCODERS, vision), find_part(LANGUAGE_MODELS, text)
    encoder, language = features_only(seen.build(vision)), spoken.build(text)
    resampler, gates = new_parts(config, encoder.dim, language.body.config)
    every, prompted = config.get("cross_attn_every_n_layers", 1), config.get("adapter_layers")
    add_gates(language, gates, every, language.body.config.depth - prompted if prompted else every - 1)
    names = {
        **under("vision_encoder.", seen.table(vision), "encoder."),
        **under("lang_encoder.", spoken.table(text), "language."),
        **OPEN_FLAMINGO,
    }
    has_class_token = encoder.embed.class_token is not None
    return Pieces(encoder, resampler, gates, language, config["image_token_id"], has_class_token, names)


def new_parts(config: Config, seen: int, blocks: TransformerConfig) -> tuple[Resampler, nn.ModuleList]:
    """The resampler and the gates, or prompts, of our layout's configuration, between features of width `seen` and the
    blocks of a language model."""
    sizes = {**RESAMPLER, **config.get("resampler_config", {})}
    shape = partial(unbiased, heads=sizes["heads"], head_dim=sizes["head_dim"])
    if prompted := config.get("adapter_layers"):
        gates = nn.ModuleList(PromptGate(blocks.dim, seen, sizes["latents"]) for _ in range(prompted))
    else:
        many = blocks.depth // config["cross_attn_every_n_layers"]
        gates = nn.ModuleList(GatedLayer(shape(blocks.dim, 1), seen) for _ in range(many))
    return Resampler(shape(seen, sizes["depth"]), sizes["latents"]), gates


def read_checkpoint_pt(name: str | os.PathLike[str], every: int, allow_pickle: bool) -> dict[str, Tensor]:
    """The tensors of an OpenFlamingo `checkpoint.pt`, a file, or in a folder or a repository on the hub, by the names
    of our layout: those of the gates are told by number, not by block, and what else a block holds (masks of old
    versions of its language model) has the language model's own name."""
    path = Path(name).expanduser()
    if not path.is_file():
        path = locate(name, allow_pickle) / "checkpoint.pt"
    content = read_pickle(path, allow_pickle)
    content = content.get("model_state_dict", content)  # as training leaves it
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} is not OpenFlamingo's: it holds more than tensors by name")
    found: dict[str, Tensor] = {}
    for theirs, tensor in content.items():
        ours = theirs.removeprefix("module.").replace(".decoder_layer.", ".")
        gate = _GATE.match(ours)
        if gate:
            layer = int(gate[1] or gate[2])
            if (layer + 1) % every:
                raise CheckpointError(f"{path} has a gate before block {layer}, and every={every} puts none there")
            ours = f"lang_encoder.gated_cross_attn_layers.{layer // every}.{ours[gate.end() :]}"
        found[ours] = tensor
    return found


# Both places in which the authors' language models hold their gates; files may have either, or both.
_GATE = re.compile(r"lang_encoder\.(?:gated_cross_attn_layers\.(\d+)|.*\.(\d+)\.gated_cross_attn_layer)\.")

OPEN_FLAMINGO: Names = {
    "perceiver.latents": "resampler.latents",
    "perceiver.layers.{}.0.norm_media": "resampler.body.blocks.{}.source_norm",
    "perceiver.layers.{}.0.norm_latents": "resampler.body.blocks.{}.attn_norm",
    "perceiver.layers.{}.0.to_q": "resampler.body.blocks.{}.attn.q",
    "perceiver.layers.{}.0.to_kv": To(("resampler.body.blocks.{}.attn.k", "resampler.body.blocks.{}.attn.v")),
    "perceiver.layers.{}.0.to_out": "resampler.body.blocks.{}.attn.out",
    "perceiver.layers.{}.1.0": "resampler.body.blocks.{}.mlp_norm",
    "perceiver.layers.{}.1.1": "resampler.body.blocks.{}.mlp.up",
    "perceiver.layers.{}.1.3": "resampler.body.blocks.{}.mlp.down",
    "perceiver.norm": "resampler.body.norm",
    **under(
        "lang_encoder.gated_cross_attn_layers.{}.",
        {
            "attn_gate": "attn_gate",
            "attn.norm": "attn_norm",
            "attn.to_q": "attn.q",
            "attn.to_kv": To(("attn.k", "attn.v")),
            "attn.to_out": "attn.out",
            "ff_gate": "mlp_gate",
            "ff.0": "mlp_norm",
            "ff.1": "mlp.up",
            "ff.3": "mlp.down",
        },
        "gates.{}.",
    ),
    **under("lang_encoder.adapters.{}.", {"prompts": "prompts", "project": "project", "gate": "gate"}, "gates.{}."),
}

IDEFICS: Names = {
    **under("model.", CLIP_IMAGE, "encoder."),
    **under("", LLAMA, "language."),
    "model.embed_tokens.additional_embedding": "language.embed.vectors.added",
    "lm_head.additional_fc": "language.head.added",
    **under(
        "model.perceiver_resampler.",
        {
            "latents": "latents",
            "blocks.{}.0.context_layer_norm": "body.blocks.{}.source_norm",
            "blocks.{}.0.latents_layer_norm": "body.blocks.{}.attn_norm",
            "blocks.{}.0.q_layer_norm": "body.blocks.{}.attn.q_norm",
            "blocks.{}.0.k_layer_norm": "body.blocks.{}.attn.k_norm",
            "blocks.{}.0.q_proj": "body.blocks.{}.attn.q",
            "blocks.{}.0.k_proj": "body.blocks.{}.attn.k",
            "blocks.{}.0.v_proj": "body.blocks.{}.attn.v",
            "blocks.{}.0.output_proj": "body.blocks.{}.attn.out",
            "blocks.{}.1.ln": "body.blocks.{}.mlp_norm",
            "blocks.{}.1.fc": "body.blocks.{}.mlp.up",
            "blocks.{}.1.c_proj": "body.blocks.{}.mlp.down",
            "layer_norm": "body.norm",
        },
        "resampler.",
    ),
    **under(
        "model.gated_cross_attn_layers.{}.",
        {
            "alpha_cross_attn": "attn_gate",
            "input_layernorm": "attn_norm",
            "cross_attn.q_layer_norm": "attn.q_norm",
            "cross_attn.k_layer_norm": "attn.k_norm",
            "cross_attn.q_proj": "attn.q",
            "cross_attn.k_proj": "attn.k",
            "cross_attn.v_proj": "attn.v",
            "cross_attn.o_proj": "attn.out",
            "cross_attn.rotary_emb.inv_freq": SPARE,
            "alpha_dense": "mlp_gate",
            "post_attention_layernorm": "mlp_norm",
            "mlp.gate_proj": "mlp.gate",
            "mlp.up_proj": "mlp.up",
            "mlp.down_proj": "mlp.down",
        },
        "gates.{}.",
    ),
}

_IDEFICS_VISION = {
    "embed_dim": 768,
    "image_size": 224,
    "intermediate_size": 5120,
    "patch_size": 14,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_IDEFICS_RESAMPLER = {
    "resampler_n_latents": 64,
    "resampler_depth": 6,
    "resampler_n_heads": 16,
    "resampler_head_dim": 96,
    "qk_layer_norms_perceiver": False,
}
