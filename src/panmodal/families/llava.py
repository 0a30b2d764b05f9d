"""Conversational: image encoder -> connector -> language model, picture vectors standing among the
words (LLaVA, Liu et al., 2023; LLaVA-1.5; LLaVA-NeXT and LLaVA-OneVision, which look at tiles as well; OneVision
also at videos)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Cache
from panmodal.checkpoints.language import find_language
from panmodal.checkpoints.names import Names, as_named, settle, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, Config, activation, find_part
from panmodal.checkpoints.store import Checkpoint, published_weights
from panmodal.connectors import MLPConnector, Spec, Tiles, kind_of, make_connector
from panmodal.data.media import Medium
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image
from panmodal.data.signals import VideoTransform
from panmodal.data.template import ChatTemplate
from panmodal.data.tiles import Size, Tiling
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder
from panmodal.encoders.image import features_only
from panmodal.errors import CheckpointError
from panmodal.families.base import Family, check_layer, take_weights
from panmodal.families.chat import Chat
from panmodal.language import LanguageModel, splice
from panmodal.transformer import initialise

VICUNA = (  # LLaVA-1.5's, for language models that come without a template
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

FRAMES = 32  # of a video, as many as OneVision was trained on at most, evenly from its first to its last

DEFAULTS: dict[str, Config] = {  # what the published configurations may leave out
    "llava": {},
    "llava_next": {"image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]},
    "llava_onevision": {
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_token_index": 151646,
        "video_token_index": 151647,
        "vision_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    },
}


class Llava(nn.Module):
    """`drop_first` leaves out the encoder's first token, which is CLIP's class token. With a `video_token`, which
    needs a `tiling`, it takes videos."""

    def __init__(
        self,
        encoder: ImageEncoder,
        connector: nn.Module,
        language: LanguageModel,
        image_token: int,
        drop_first: bool = True,
        tiling: Tiling | None = None,
        video_token: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.connector, self.language = encoder, connector, language
        self.image_token, self.video_token, self.drop_first = image_token, video_token, drop_first
        self.tiles = Tiles(language.dim, tiling) if tiling else None

    def encode(self, images: Tensor, sizes: Sequence[Size] = ()) -> Tensor:
        """images [N, 3, height, width], or the tiles of pictures cut by `sizes` -> [V, D], picture after picture"""
        vectors = self._look(images)
        return vectors.flatten(0, 1) if self.tiles is None else self.tiles(vectors, sizes)

    def encode_videos(self, videos: Tensor) -> Tensor:
        """videos [N, 1, 3, frames, height, width] -> [N, V, D]"""
        frames = videos.squeeze(1).transpose(1, 2)  # [N, frames, 3, height, width]
        assert self.tiles is not None
        vectors = self._look(frames.flatten(0, 1))
        return self.tiles.video(vectors.view(*frames.shape[:2], *vectors.shape[1:]))

    def _look(self, images: Tensor) -> Tensor:
        """images [N, 3, height, width] -> [N, P, D]"""
        out: Tensor = self.connector(self.encoder(images)[:, int(self.drop_first) :])
        return out

    def vectors(self, ids: Tensor, media: Tensor | None = None) -> Tensor:
        """ids [B, T], vectors of all pictures and videos [V, D] in reading order -> [B, T, D]"""
        x, places = self.language.embed.words(ids), ids == self.image_token
        if self.video_token is not None:
            places |= ids == self.video_token
        return x if media is None else splice(x, places, media)

    def forward(
        self,
        ids: Tensor,
        images: Tensor | None = None,
        pad: Tensor | None = None,
        cache: Cache | None = None,
        sizes: Tensor | None = None,
        videos: Tensor | None = None,
    ) -> Tensor:
        """ids [B, T], images [N, 3, height, width] in reading order, or the tiles of pictures of `sizes` [pictures, 2],
        videos [M, 1, 3, frames, height, width] -> logits [B, T, vocab]"""
        media = {} if videos is None else {"video": videos}
        return self.language.logits(self.read(Batch(ids, pad, images=images, sizes=sizes, media=media), cache))

    def read(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """-> hidden states [B, T, D]"""
        x = self.language.embed.words(batch.ids)
        if batch.images is not None:
            cuts: list[Size] = [] if batch.sizes is None else [(h, w) for h, w in batch.sizes.tolist()]
            x = splice(x, batch.ids == self.image_token, self.encode(batch.images, cuts))
        if self.video_token is not None and "video" in batch.media:
            x = splice(x, batch.ids == self.video_token, self.encode_videos(batch.media["video"]))
        return self.language.decode(x, batch.pad, cache)


class LlavaChat(Chat[Llava]):
    """Pictures, in OneVision videos, and words in, words out."""

    spare_under = ("encoder.",)  # the layers after the one whose features are read

    @staticmethod
    def build(config: Config) -> tuple[Llava, Names]:
        config = {**DEFAULTS[config["model_type"]], **config}
        vision, text = config["vision_config"], dict(config["text_config"])
        if "tie_word_embeddings" in config:
            text.setdefault("tie_word_embeddings", config["tie_word_embeddings"])
        seen = find_part(IMAGE_ENCODERS, vision, "clip_vision_model")
        spoken = find_language(text, "llama")
        layer = config.get("vision_feature_layer", -2)
        if not isinstance(layer, int):
            raise CheckpointError(f"config.json reads several vision layers, {layer}; panmodal reads one")
        depth = layer if layer >= 0 else seen.build(vision).body.config.depth + 1 + layer
        encoder = features_only(seen.build({**vision, "num_hidden_layers": depth}))
        language = spoken.build(text)
        spec = config.get("connector", "mlp")
        if spec == "mlp":
            act, bias = config.get("projector_hidden_act", "gelu"), config.get("multimodal_projector_bias", True)
            connector: nn.Module = MLPConnector(encoder.dim, language.dim, activation(act), bias)
        else:
            connector = make_connector(spec, encoder.dim, language.dim)
        drop_first = config.get("vision_feature_select_strategy", "default") == "default"
        names = {
            **under("vision_tower.", seen.table(vision), "encoder."),
            **under("language_model.", spoken.table(text), "language."),
            **(
                PROJECTOR_NAMES.get(kind_of(spec)) or under("multi_modal_projector.", as_named(connector), "connector.")
            ),
            "image_newline": "tiles.newline",
        }
        token = config.get("image_token_index", config.get("image_token_id", 32000))
        tiling, video = _tiling(config, encoder), config.get("video_token_index")
        return Llava(encoder, connector, language, token, drop_first, tiling, video), names

    def make_processor(self) -> Processor:
        files, model = self.checkpoint.files, self.model
        tokenizer = Tokenizer.from_files(files)
        pictures = self.checkpoint.image_processor
        word = tokenizer.backend.id_to_token(model.image_token) if tokenizer else None
        special = tokenizer.special if tokenizer else {}
        video = {} if model.video_token is None else {"video": "<video>"}
        template = ChatTemplate(self.checkpoint.chat_template or VICUNA, word or "<image>", special, video)
        told = self.checkpoint.video_processor if video else {}
        videos = {"video": _video_transform(told)} if told else {}
        places = dict[str, tuple[int, int]]()
        if model.video_token is not None:
            tiling = model.tiles.tiling if model.tiles and videos else None
            places["video"] = model.video_token, tiling.video_vectors(videos["video"].frames) if tiling else 0
        tokens = model.encoder.embed.grid**2 + (model.encoder.embed.class_token is not None) - model.drop_first
        return Processor(
            tokenizer,
            _transform(pictures, model.tiles is not None) if pictures else None,
            template,
            context=model.language.context,
            image_token=model.image_token,
            image_vectors=model.connector.tokens(tokens),  # type: ignore[operator]
            tiling=model.tiles.tiling if model.tiles else None,
            places=places,
            media=videos,
        )

    @property
    def interleaved(self) -> bool:  # type: ignore[override]
        return bool(self.config["model_type"] == "llava_onevision")

    @property
    def language(self) -> LanguageModel:
        return self.model.language

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Sequence[Tensor]:
        sizes = sizes or [(0, 0)] * len(images)
        pixels = self.processor.pictures(images, sizes).to(self.device, self.dtype)
        return torch.split(self.model.encode(pixels, sizes), [self.processor.vectors(size) for size in sizes])

    def encode_others(self, kind: str, media: Sequence[Medium]) -> Tensor:
        return self.model.encode_videos(self.processor.medium(kind, media).to(self.device, self.dtype))

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.model.vectors(ids, images)


def _tiling(config: Config, encoder: ImageEncoder) -> Tiling | None:
    """From the settings of LLaVA-NeXT and OneVision."""
    if config["model_type"] == "llava":
        return None
    resolutions = tuple((int(height), int(width)) for height, width in config["image_grid_pinpoints"])
    limit = str(config.get("vision_aspect_ratio", ""))
    return Tiling(
        resolutions, encoder.image_size, encoder.embed.grid, int(limit.removeprefix("anyres_max_")) if limit else None
    )


def _transform(config: dict[str, Any], tiled: bool) -> ImageTransform:
    """Tiles come at their size. A picture that is looked at as a whole alone is resized to it (LLaVA-NeXT, whose
    `do_pad` is of batches), or padded to a square before (OneVision)."""
    if tiled:
        squeezes = "shortest_edge" in config.get("size", ())
        size = config["crop_size"] if squeezes else config["size"]
        config = {**config, "size": size, "do_center_crop": False, "do_pad": not squeezes}
    return ImageTransform.from_config(config)


def _video_transform(config: dict[str, Any]) -> VideoTransform:
    """Frames from all of a video, each resized to the tower's size as it is."""
    frame = ImageTransform.from_config({**config, "do_pad": False})
    return VideoTransform(frame, config.get("num_frames") or FRAMES, clips=1, seconds=math.inf)


PROJECTOR_NAMES: dict[str, Names] = {  # published for the MLP; those that follow its manner
    "mlp": {
        "multi_modal_projector.linear_1": "connector.up",
        "multi_modal_projector.linear_2": "connector.down",
    },
    "linear": {"multi_modal_projector": "connector.project"},
    "pixel_shuffle": {
        "multi_modal_projector.linear_1": "connector.mlp.up",
        "multi_modal_projector.linear_2": "connector.mlp.down",
    },
}


def llava(vision: Family[Any], connector: Spec, language: Chat[LanguageModel], layer: int = -2) -> LlavaChat:
    """A LLaVA from its parts; see `compose`."""
    tower, seen = vision.image_tower()
    check_layer(tower, layer)
    tokenizer = language.processor.tokenizer
    token = tokenizer.add_special("<image>")
    words = language.model.embed.vectors.weight
    rows = max(token + 1, len(words))
    has_class_token = tower.embed.class_token is not None
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "connector": connector,
        "vision_config": seen,
        "text_config": {**language.config, "vocab_size": rows},
        "image_token_index": token,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": "default" if has_class_token else "full",
        "tie_word_embeddings": language.model.tied,
    }
    with torch.device("meta"):
        model, names = LlavaChat.build(config)
    model.connector = make_connector(connector, tower.dim, language.model.dim)
    initialise(model.connector)
    take_weights(model.encoder, tower)
    model.language.load_state_dict(language.model.grown(rows), assign=True)
    model.language.tie()
    part = find_part(IMAGE_ENCODERS, seen)
    whole = published_weights(tower, Checkpoint(seen, settle(part.table(seen))))
    spare = {f"vision_tower.{name}": tensor for name, tensor in whole.items()}
    files = {**language.checkpoint.files, **tokenizer.to_files()}
    files["preprocessor_config.json"] = json.dumps(vision.checkpoint.image_processor).encode()
    told = {  # for the reference's processor, which counts a picture's vectors by them
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": {**part.defaults, **seen}["patch_size"],
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
        "num_additional_image_tokens": int(has_class_token),
    }
    files["processor_config.json"] = json.dumps(told).encode()
    if language.checkpoint.chat_template:
        files["chat_template.jinja"] = language.checkpoint.chat_template.encode()
    return LlavaChat(model, Checkpoint(config, settle(names), files, spare))
