"""A small untrained model of every family, over the playground's tokenizer."""

from __future__ import annotations

import json
from tempfile import TemporaryDirectory

import torch

from panmodal.connectors import CONNECTORS
from panmodal.data.processor import Processor
from panmodal.families import Family, compose, family_of, flamingo, llama_adapter, minigpt4
from panmodal.families.flamingo import Flamingo
from panmodal.playground.speech import CHAT_TEMPLATE, tokenizer
from panmodal.transformer import initialise

PICTURES = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
TOWER = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BOUND = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
SEEN = dict(**TOWER, image_size=32, patch_size=8)
READ = dict(**TOWER, vocab_size=344, max_position_embeddings=96, eos_token_id=3)
SPOKEN = dict(**TOWER, vocab_size=344, max_position_embeddings=256, tie_word_embeddings=True)
QUERIED = dict(
    vision_config=SEEN,
    qformer_config=dict(**TOWER, vocab_size=344, max_position_embeddings=96),
    num_query_tokens=6,
)
SEGMENTS = dict(
    vision_config=dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_dim=64,
        image_size=32,
        patch_size=4,
        window_size=3,
        global_attn_indexes=[1],
        output_channels=32,
    ),
    prompt_encoder_config=dict(hidden_size=32, image_size=32),
    mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
)
SEGMENTS2 = dict(
    vision_config=dict(
        backbone_config=dict(
            hidden_size=16,
            patch_kernel_size=[3, 3],
            patch_stride=[1, 1],
            patch_padding=[1, 1],
            blocks_per_stage=[1, 1, 1, 1],
            embed_dim_per_stage=[16, 32, 32, 32],
            num_attention_heads_per_stage=[1, 2, 2, 2],
            window_size_per_stage=[4, 4, 2, 2],
            global_attention_blocks=[],
        ),
        backbone_channel_list=[32, 32, 32, 16],
        fpn_hidden_size=32,
    ),
    prompt_encoder_config=dict(hidden_size=32, image_size=32),
    mask_decoder_config=dict(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32),
)

CONFIGS = {
    "clip": dict(model_type="clip", vision_config=SEEN, text_config=READ, projection_dim=16),
    "siglip": dict(model_type="siglip", vision_config=SEEN, text_config=READ),
    "blip": dict(
        model_type="blip",
        architectures=["BlipForPreTraining"],
        vision_config=SEEN,
        text_config=dict(**TOWER, vocab_size=344, max_position_embeddings=96, bos_token_id=2, sep_token_id=3),
        image_text_hidden_size=16,
        tie_encoder_decoder=True,
    ),
    "llama": dict(model_type="llama", **SPOKEN),
    "qwen3": dict(model_type="qwen3", num_key_value_heads=2, head_dim=8, **SPOKEN),
    "gpt2": dict(model_type="gpt2", n_embd=32, n_layer=2, n_head=4, vocab_size=344, n_positions=256),
    "gpt_neox": dict(model_type="gpt_neox", rotary_pct=0.5, **{**SPOKEN, "tie_word_embeddings": False}),
    "mpt": dict(model_type="mpt", d_model=32, n_layers=2, n_heads=4, vocab_size=344, max_seq_len=256),
    "opt": dict(model_type="opt", ffn_dim=64, word_embed_proj_dim=32, **SPOKEN),
    "idefics": dict(
        model_type="idefics",
        vision_config={**{k: v for k, v in SEEN.items() if k != "hidden_size"}, "embed_dim": 32},
        use_resampler=True,
        perceiver_config=dict(resampler_n_latents=4, resampler_depth=1, resampler_n_heads=4, resampler_head_dim=8),
        qk_layer_norms=True,
        cross_layer_interval=2,
        **{**SPOKEN, "tie_word_embeddings": False},
    ),
    "blip2": dict(model_type="blip-2", text_config=dict(model_type="opt", ffn_dim=64, **SPOKEN), **QUERIED),
    "instructblip": dict(model_type="instructblip", text_config=dict(model_type="llama", **SPOKEN), **QUERIED),
    "blip2-itm": dict(
        model_type="blip-2", architectures=["Blip2ForImageTextRetrieval"], image_text_hidden_size=16, **QUERIED
    ),
    "vit": dict(model_type="vit", **SEEN),
    "dinov2": dict(model_type="dinov2", **SEEN),
    "imagebind": dict(
        model_type="imagebind",
        projection_dim=16,
        vision_config=dict(**BOUND, image_size=32, patch_size=8),
        text_config=dict(**BOUND, vocab_size=344, max_position_embeddings=96, eos_token_id=3),
        audio_config=dict(**BOUND, height=64, stride=16),
        depth_config=dict(**BOUND, height=32, width=32),
        thermal_config=dict(**BOUND, height=32, width=32),
        imu_config=dict(**BOUND, num_samples=40),
    ),
    "sam": dict(model_type="sam", **SEGMENTS),
    "sam2": dict(model_type="sam2", **SEGMENTS2),
    "bert": dict(model_type="bert", **{k: v for k, v in READ.items() if k != "eos_token_id"}),
}


RESAMPLER = dict(latents=5, depth=2, heads=4, head_dim=8)
CONNECTOR_OPTIONS = {
    "qformer": dict(queries=5, depth=2, heads=4),
    "resampler": RESAMPLER,
    "abstractor": dict(depth=1),
}
ANSWERING = {"architectures": ["BlipForQuestionAnswering"]}


def small(name: str, std: float = 0.1) -> Family:
    """`name`: a key of CONFIGS, `blip-vqa`, or one composed of others: `flamingo`, `adapter`, `llava` (with `-tiles`, or `-` and a connector), `senses` or `minigpt4`."""
    torch.manual_seed(0)
    if name == "flamingo":
        family = flamingo(small("clip", std), small("llama", std), every=2, latents=4, depth=1, heads=4, head_dim=8)
    elif name == "adapter":
        family = llama_adapter(
            small("clip", std), small("llama", std), layers=1, prompts=4, depth=1, heads=4, head_dim=8
        )
    elif name.startswith("llava"):
        connector = name.partition("-")[2] or "mlp"
        spec = {"kind": "mlp" if connector == "tiles" else connector, **CONNECTOR_OPTIONS.get(connector, {})}
        family = compose(small("clip", std), spec if len(spec) > 1 else spec["kind"], small("llama", std))
        if connector == "tiles":
            config = {**family.config, "model_type": "llava_next", "image_grid_pinpoints": [[32, 64], [64, 64]]}
            family = family_of(config).fresh(config, family.checkpoint.files)
    elif name == "senses":
        parts = dict(vision=small("clip", std), audio=small("imagebind", std), language=small("llama", std))
        family = compose(**parts, connector={"vision": "mlp", "audio": {"kind": "resampler", **RESAMPLER}}, frames=2)
    elif name == "minigpt4":
        with TemporaryDirectory() as folder:
            small("blip2", std).save(folder)
            family = minigpt4(folder, small("llama", std))
    else:
        config = CONFIGS["blip"] | ANSWERING if name == "blip-vqa" else CONFIGS[name]
        files = {**tokenizer().to_files(), "preprocessor_config.json": json.dumps(PICTURES).encode()}
        if "vocab_size" in config and config["model_type"] != "bert":
            files["chat_template.jinja"] = CHAT_TEMPLATE.encode()
        if config["model_type"] in ("vit", "dinov2"):
            files = {"preprocessor_config.json": files["preprocessor_config.json"]}
        if config["model_type"] in ("sam", "sam2"):
            size = {"longest_edge": 32} if name == "sam" else {"height": 32, "width": 32}
            files = {"preprocessor_config.json": json.dumps({"size": size}).encode()}
        if name == "instructblip":
            files |= {f"qformer_tokenizer/{file}": content for file, content in tokenizer().to_files().items()}
        family = family_of(config).fresh(config, files)
    if name not in ("sam", "sam2"):  # whose positions must not be quiet
        initialise(family.model, std)
    if isinstance(family.model, Flamingo):  # whose gates begin closed
        for gate in family.model.gates.parameters():
            if gate.shape == (1,):
                gate.data.fill_(0.5)
    assert isinstance(family.processor, Processor)
    return family


NAMES = [
    *CONFIGS,
    "flamingo",
    "adapter",
    "llava",
    "llava-tiles",
    "minigpt4",
    "senses",
    *(f"llava-{kind}" for kind in CONNECTORS if kind != "mlp"),
]
SEERS = [
    "llava",
    "llava-pixel_shuffle",
    "llava-tiles",
    "senses",
    "blip2",
    "instructblip",
    "minigpt4",
    "flamingo",
    "adapter",
    "idefics",
]  # those that are shown pictures
SPEAKERS = ["llama", "qwen3", "gpt2", "gpt_neox", "mpt", "opt"]
CHATS = [*SPEAKERS, *SEERS]
EMBEDDERS = ["clip", "siglip", "blip", "blip2-itm", "imagebind", "vit", "dinov2", "bert"]
