"""Conversational: image encoder -> connector -> language model, picture vectors standing among the
words (LLaVA, Liu et al., 2023; LLaVA-1.5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Cache
from panmodal.checkpoints.names import Names, settle, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, LANGUAGE_MODELS, Config, activation, find_part
from panmodal.checkpoints.store import Checkpoint, published_weights
from panmodal.connectors import MLPConnector, make_connector
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Image
from panmodal.data.template import ChatTemplate
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder
from panmodal.encoders.image import features_only
from panmodal.errors import CheckpointError, InputError
from panmodal.families.base import Family
from panmodal.families.chat import Chat
from panmodal.language import LanguageModel, splice
from panmodal.transformer import initialise

VICUNA = (  # LLaVA-1.5's, for language models that come without a template
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class Llava(nn.Module):
    """`drop_first` leaves out the encoder's first token, which is CLIP's class token."""

    def __init__(
        self,
        encoder: ImageEncoder,
        connector: nn.Module,
        language: LanguageModel,
        image_token: int,
        drop_first: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.connector, self.language = encoder, connector, language
        self.image_token, self.drop_first = image_token, drop_first

    def encode(self, images: Tensor) -> Tensor:
        """images [N, 3, height, width] -> [N, P, D]"""
        out: Tensor = self.connector(self.encoder(images)[:, int(self.drop_first) :])
        return out

    def vectors(self, ids: Tensor, media: Tensor | None = None) -> Tensor:
        """ids [B, T], picture vectors [N, P, D] in reading order -> [B, T, D]"""
        x = self.language.embed.words(ids)
        return x if media is None else splice(x, ids == self.image_token, media)

    def forward(
        self, ids: Tensor, images: Tensor | None = None, pad: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """ids [B, T], images [N, 3, height, width] in reading order -> logits [B, T, vocab]"""
        return self.language.logits(self.hidden(ids, images, pad, cache))

    def hidden(
        self, ids: Tensor, images: Tensor | None = None, pad: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """ids [B, T], images [N, 3, height, width] in reading order -> hidden states [B, T, D]"""
        x = self.vectors(ids, None if images is None else self.encode(images))
        return self.language.decode(x, pad, cache)


class LlavaChat(Chat[Llava]):
    """Pictures and words in, words out."""

    spare_under = ("encoder.",)  # the layers after the one whose features are read

    @staticmethod
    def build(config: Config) -> tuple[Llava, Names]:
        vision, text = config["vision_config"], dict(config["text_config"])
        if "tie_word_embeddings" in config:
            text.setdefault("tie_word_embeddings", config["tie_word_embeddings"])
        seen = find_part(IMAGE_ENCODERS, vision, "clip_vision_model")
        spoken = find_part(LANGUAGE_MODELS, text, "llama")
        layer = config.get("vision_feature_layer", -2)
        if not isinstance(layer, int):
            raise CheckpointError(f"config.json reads several vision layers, {layer}; panmodal reads one")
        depth = layer if layer >= 0 else seen.build(vision).body.config.depth + 1 + layer
        encoder = features_only(seen.build({**vision, "num_hidden_layers": depth}))
        language = spoken.build(text)
        kind = config.get("connector", "mlp")
        if kind == "mlp":
            act, bias = config.get("projector_hidden_act", "gelu"), config.get("multimodal_projector_bias", True)
            connector: nn.Module = MLPConnector(encoder.dim, language.dim, activation(act), bias)
        else:
            connector = make_connector(kind, encoder.dim, language.dim)
        drop_first = config.get("vision_feature_select_strategy", "default") == "default"
        names = {
            **under("vision_tower.", seen.table(vision), "encoder."),
            **under("language_model.", spoken.table(text), "language."),
            **PROJECTOR_NAMES[kind],
        }
        token = config.get("image_token_index", config.get("image_token_id", 32000))
        return Llava(encoder, connector, language, token, drop_first), names

    def make_processor(self) -> Processor:
        files, model = self.checkpoint.files, self.model
        tokenizer = Tokenizer.from_files(files)
        pictures = self.checkpoint.image_processor
        word = tokenizer.backend.id_to_token(model.image_token) if tokenizer else None
        template = ChatTemplate(
            self.checkpoint.chat_template or VICUNA, word or "<image>", tokenizer.special if tokenizer else {}
        )
        tokens = model.encoder.embed.grid**2 + (model.encoder.embed.class_token is not None) - model.drop_first
        return Processor(
            tokenizer,
            ImageTransform.from_config(pictures) if pictures else None,
            template,
            context=model.language.context,
            image_token=model.image_token,
            image_vectors=model.connector.tokens(tokens),  # type: ignore[operator]
        )

    @property
    def language(self) -> LanguageModel:
        return self.model.language

    def encode_images(self, images: Sequence[Image]) -> Tensor:
        return self.model.encode(self.processor.pictures(images).to(self.device, self.dtype))

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.model.vectors(ids, images)


PROJECTOR_NAMES: dict[str, Names] = {  # published for the MLP; the others follow its manner
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


def compose(vision: Family[Any], connector: str, language: Chat[LanguageModel], layer: int = -2) -> LlavaChat:
    """A new model from an image encoder (or CLIP's image tower) and a language model.

    Their weights are taken over, not copied; the connector is untrained. Features are read after
    the encoder's layer `layer`: -1 is its last, -2 the one before, as in LLaVA.
    """
    make_connector(connector, 1, 1)  # a wrong name is told before anything is done
    tower, seen = vision.image_tower()
    if not -tower.body.config.depth <= layer < 0:
        raise InputError(f"there is no vision layer {layer}: -1 is the last, {-tower.body.config.depth} the first")
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
    known = model.encoder.state_dict().keys()
    model.encoder.load_state_dict({k: v for k, v in tower.state_dict().items() if k in known}, assign=True)
    spoken = language.model.state_dict()
    for name in ("embed.vectors.weight", "head.weight"):
        mean = spoken[name].mean(dim=0, keepdim=True)
        spoken[name] = torch.cat([spoken[name], mean.expand(rows - len(words), -1)])
    model.language.load_state_dict(spoken, assign=True)
    model.language.tie()
    part = find_part(IMAGE_ENCODERS, seen)
    whole = published_weights(tower, Checkpoint(seen, settle(part.table(seen))))
    spare = {f"vision_tower.{name}": tensor for name, tensor in whole.items()}
    files = {**language.checkpoint.files, **tokenizer.to_files()}
    files["preprocessor_config.json"] = json.dumps(vision.checkpoint.image_processor).encode()
    if language.checkpoint.chat_template:
        files["chat_template.jinja"] = language.checkpoint.chat_template.encode()
    return LlavaChat(model, Checkpoint(config, settle(names), files, spare))
