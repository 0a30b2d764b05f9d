"""Conversational over several kinds of media: for each an encoder -> a connector -> one language model, the vectors of
all standing among the words (the front half of NExT-GPT, Wu et al., 2023, in one splice as LLaVA's)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Cache
from panmodal.checkpoints.imagebind import TOWERS
from panmodal.checkpoints.language import find_language
from panmodal.checkpoints.names import Names, as_named, settle, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, Config, Part, find_part
from panmodal.checkpoints.store import Checkpoint
from panmodal.connectors import Spec, make_connector
from panmodal.data.media import Medium
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image
from panmodal.data.signals import SoundTransform, VideoTransform
from panmodal.data.template import PLAIN, ChatTemplate
from panmodal.data.tiles import Size
from panmodal.data.tokens import Tokenizer
from panmodal.errors import InputError
from panmodal.families.base import Family, check_layer, take_weights
from panmodal.families.chat import Chat
from panmodal.language import LanguageModel, splice
from panmodal.transformer import initialise

# model_type of an encoder: those of pictures, and ImageBind's.
ENCODERS: dict[str, Part[Any]] = {
    **IMAGE_ENCODERS,
    **{f"imagebind_{kind}": TOWERS[kind][1] for kind in ("image", "audio")},
}
PLACE = "<{}>"  # the word in whose place a medium of a kind stands


class Senses(nn.Module):
    """By kind, an encoder and a connector; and by kind, the token whose places the vectors take. Videos, which have a
    token alone, go through the encoder and connector of pictures."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        connectors: Mapping[str, nn.Module],
        language: LanguageModel,
        tokens: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.encoder, self.connector = nn.ModuleDict(encoders), nn.ModuleDict(connectors)
        self.language, self.tokens = language, dict(tokens)

    def encode(self, kind: str, media: Tensor) -> Tensor:
        """Pictures [N, 3, H, W], videos [N, clips, 3, frames, H, W] or sounds [N, clips, 1, bins, frames] -> [N, V, D],
        clip after clip"""
        sense = "image" if kind == "video" else kind
        clips = media if kind == "image" else media.flatten(0, 1)
        if clips.ndim == 5 and clips.shape[2] == 1:  # a clip of one frame is a picture
            clips = clips.squeeze(2)
        encoder: Any = self.encoder[sense]
        features = encoder(clips)[:, int(encoder.embed.class_token is not None) :]
        out: Tensor = self.connector[sense](features)
        return out.reshape(len(media), -1, out.shape[-1])

    def vectors_of(self, sense: str) -> int:
        """How many vectors a picture or clip becomes."""
        embed: Any = self.encoder[sense].embed
        connector: Any = self.connector[sense]
        return int(connector.tokens(len(embed.positions) - (embed.class_token is not None)))

    def vectors(self, ids: Tensor, media: Tensor | None = None) -> Tensor:
        """ids [B, T], vectors of all media [V, D] in reading order -> [B, T, D]"""
        x, tokens = self.language.embed.words(ids), torch.tensor([*self.tokens.values()], device=ids.device)
        return x if media is None else splice(x, torch.isin(ids, tokens), media)

    def forward(
        self,
        ids: Tensor,
        images: Tensor | None = None,
        pad: Tensor | None = None,
        cache: Cache | None = None,
        media: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """ids [B, T], and what `encode` takes of each kind, in reading order -> logits [B, T, vocab]"""
        return self.language.logits(self.read(Batch(ids, pad, images=images, media=media or {}), cache))

    def read(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """-> hidden states [B, T, D]"""
        x, given = self.language.embed.words(batch.ids), {"image": batch.images, **batch.media}
        for kind, token in self.tokens.items():
            if (media := given.get(kind)) is not None:
                x = splice(x, batch.ids == token, self.encode(kind, media))
        return self.language.decode(x, batch.pad, cache)


class SensesChat(Chat[Senses]):
    """Pictures, videos, sounds and words in, words out."""

    @staticmethod
    def build(config: Config) -> tuple[Senses, Names]:
        text, told = config["text_config"], _senses(config)
        spoken = find_language(text)
        language = spoken.build(text)
        encoders = {kind: _encoder(own) for kind, own in told.items() if kind != "video"}
        connectors = {
            kind: make_connector(told[kind]["connector"], encoder.body.config.dim, language.dim)
            for kind, encoder in encoders.items()
        }
        model = Senses(encoders, connectors, language, {kind: own["token_index"] for kind, own in told.items()})
        own_names = {path: ours for path, ours in as_named(model).items() if not path.startswith("language.")}
        return model, {**own_names, **under("language_model.", spoken.table(text), "language.")}

    def make_processor(self) -> Processor:
        model, told, settings = self.model, _senses(self.config), self.checkpoint.image_processor
        tokenizer = Tokenizer.from_files(self.checkpoint.files)
        pictures, media = None, dict[str, Any]()
        vectors = {kind: model.vectors_of(kind) for kind in model.encoder}
        if "image" in told:
            pictures = ImageTransform.from_config({"image_processor_type": "CLIPImageProcessor", **settings})
        if pictures is not None and "video" in told:
            frames = told["image"].get("num_frames", 1)  # of a clip: ImageBind's see motion
            clips = told["video"]["num_frames"] // frames
            media["video"] = VideoTransform(pictures, frames, clips, seconds=2.0 if frames > 1 else 0.0)
            vectors["video"] = clips * vectors["image"]
        if "audio" in told:
            sounds = SoundTransform(told["audio"]["height"], told["audio"]["width"], **settings.get("audio", {}))
            media["audio"] = sounds
            vectors["audio"] *= sounds.clips
        template = self.checkpoint.chat_template or PLAIN
        others = {kind: PLACE.format(kind) for kind in told if kind != "image"}
        return Processor(
            tokenizer,
            pictures,
            ChatTemplate(template, special=tokenizer.special if tokenizer else {}, others=others),
            context=model.language.context,
            image_token=model.tokens.get("image"),
            image_vectors=vectors.get("image", 0),
            places={kind: (model.tokens[kind], vectors[kind]) for kind in others},
            media=media,
        )

    @property
    def takes(self) -> tuple[str, ...]:
        return tuple(self.model.tokens)

    @property
    def language(self) -> LanguageModel:
        return self.model.language

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        return self.model.encode("image", self.processor.pictures(images).to(self.device, self.dtype))

    def encode_others(self, kind: str, media: Sequence[Medium]) -> Tensor:
        return self.model.encode(kind, self.processor.medium(kind, media).to(self.device, self.dtype))

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.model.vectors(ids, images)


def _senses(config: Config) -> dict[str, Config]:
    """What `config.json` says of each kind of media that there is"""
    return {kind: config[f"{kind}_config"] for kind in ("image", "video", "audio") if f"{kind}_config" in config}


def _encoder(told: Config) -> Any:
    """An encoder whose features are read after the layer `feature_layer`, without the last norm; if it names none,
    after the last, with it."""
    part, layer = find_part(ENCODERS, told), told.get("feature_layer")
    told = {**part.defaults, **told}
    encoder = part.build(
        {**told, "num_hidden_layers": told["num_hidden_layers"] + 1 + (-1 if layer is None else layer)}
    )
    encoder.pool = encoder.head = nn.Identity()
    if layer is not None:
        encoder.body.norm = nn.Identity()
    return encoder


def senses(
    media: Mapping[str, Family[Any]],
    connectors: Mapping[str, Spec],
    language: Chat[LanguageModel],
    layer: int,
    frames: int,
) -> SensesChat:
    """A model from a family for each kind of media, "image" or "audio", that has an encoder of it; see `compose`."""
    tokenizer, words = language.processor.tokenizer, language.model.embed.vectors.weight
    config: dict[str, Any] = {"model_type": "senses"}
    settings, towers = dict[str, Any](), dict[str, Any]()
    for kind, family in media.items():
        towers[kind], told = family.tower(kind)
        config[f"{kind}_config"] = {**told, "connector": connectors[kind]}
        own = family.checkpoint.image_processor
        settings |= own if kind == "image" else {kind: own.get(kind, {})}
    if "image" in media:
        check_layer(towers["image"], layer)
        config["image_config"]["feature_layer"] = layer
    if frames:
        each = config["image_config"].get("num_frames", 1)
        if frames % each:
            raise InputError(f"the vision encoder sees {each} frames at a time; {frames} are no multiple of that")
        config["video_config"] = {"num_frames": frames}
    for kind in _senses(config):
        config[f"{kind}_config"]["token_index"] = tokenizer.add_special(PLACE.format(kind))
    rows = max(tokenizer.size, len(words))
    config["text_config"] = {**language.config, "vocab_size": rows}
    with torch.device("meta"):
        model, names = SensesChat.build(config)
    for kind, tower in towers.items():
        take_weights(model.encoder[kind], tower)
        model.connector[kind] = make_connector(connectors[kind], tower.body.config.dim, language.model.dim)
    initialise(model.connector)
    model.language.load_state_dict(language.model.grown(rows), assign=True)
    model.language.tie()
    files = {
        **language.checkpoint.files,
        **tokenizer.to_files(),
        "preprocessor_config.json": json.dumps(settings).encode(),
    }
    if language.checkpoint.chat_template:
        files["chat_template.jinja"] = language.checkpoint.chat_template.encode()
    return SensesChat(model, Checkpoint(config, settle(names), files))
