"""Generative: a language model looks, through gated cross-attention, at pictures that stand among its words, and so
learns from a few examples in its prompt (Flamingo, Alayrac et al., 2022; OpenFlamingo; IDEFICS)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.checkpoints.flamingo import new_parts, read_checkpoint_pt, read_flamingo, read_idefics
from panmodal.checkpoints.names import Names, settle, to_theirs
from panmodal.checkpoints.parts import IMAGE_ENCODERS, Config, find_part
from panmodal.checkpoints.store import Checkpoint, Stored, load_weights, published_weights
from panmodal.connectors.gated import latest_only
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image
from panmodal.data.template import ChatTemplate
from panmodal.data.tiles import Size
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder
from panmodal.errors import CheckpointError, InputError
from panmodal.families.base import Family
from panmodal.families.chat import Chat, Shown
from panmodal.language import LanguageModel, with_rows
from panmodal.transformer import TransformerConfig, initialise

END_OF_CHUNK, END_OF_UTTERANCE = "<|endofchunk|>", "<end_of_utterance>"
COMPLETION = (  # OpenFlamingo's few-shot prompts: <image>two cats.<|endofchunk|><image>a dog.<|endofchunk|><image>
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<|endofchunk|>{% endif %}{% endfor %}"
)
_IDEFICS_PARTS = (  # a token around pictures, one between two of them
    "{% set before = namespace(image=false) %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "{{ '' if before.image else '<fake_token_around_image>' }}<image><fake_token_around_image>"
    "{% else %}{{ part['text'].strip(' ') }}{% endif %}{% set before.image = part['type'] == 'image' %}{% endfor %}"
)
IDEFICS = "{{ bos_token }}{% for message in messages %}" + _IDEFICS_PARTS + "{% endfor %}"
IDEFICS_INSTRUCT = (
    "{{ bos_token }}{% for message in messages %}{{ '' if loop.first else '\n' }}{{ message['role'].capitalize() }}:"
    "{{ '' if message['content'][0]['type'] == 'image' else ' ' }}"
    + _IDEFICS_PARTS
    + "<end_of_utterance>{% endfor %}{% if add_generation_prompt %}{{ '\nAssistant:' }}{% endif %}"
)


class Flamingo(nn.Module):
    """`drop_first` leaves out the encoder's first token, which is CLIP's class token."""

    def __init__(
        self,
        encoder: ImageEncoder,
        resampler: nn.Module,
        gates: nn.ModuleList,
        language: LanguageModel,
        image_token: int,
        drop_first: bool,
    ) -> None:
        super().__init__()
        self.encoder, self.resampler = encoder, resampler
        self.gates = gates  # before the language model, whose blocks hold them, too: a parameter has its first name
        self.language = language
        self.image_token, self.drop_first = image_token, drop_first

    def encode(self, images: Tensor) -> Tensor:
        """images [N, 3, height, width] -> [N, P, width of the encoder]"""
        out: Tensor = self.resampler(self.encoder(images)[:, int(self.drop_first) :])
        return out

    def source(self, ids: Tensor, pictures: Tensor | None, pad: Tensor | None = None) -> Source | None:
        """ids [B, T], vectors of their pictures [N, P, D] in reading order -> what each token sees: those of the
        latest picture up to it."""
        return None if pictures is None else latest_only(ids == self.image_token, pictures, pad)

    def forward(self, ids: Tensor, images: Tensor | None = None, pad: Tensor | None = None) -> Tensor:
        """ids [B, T], images [N, 3, height, width] in reading order -> logits [B, T, vocab]"""
        return self.language.logits(self.read(Batch(ids, pad, images=images)))

    def read(self, batch: Batch) -> Tensor:
        """-> hidden states [B, T, D]"""
        source = self.source(batch.ids, None if batch.images is None else self.encode(batch.images), batch.pad)
        return self.language.decode(self.language.embed.words(batch.ids), batch.pad, source=source)


class FlamingoChat(Chat[Flamingo]):
    """Pictures among words in, words out. A prompt with examples is a conversation, `user(picture),
    assistant("two cats."), user(another)`, or one text, `user(picture, "two cats.<|endofchunk|>", another)`."""

    interleaved = True
    spare_under = ("encoder.",)  # what makes one vector of the tokens

    @staticmethod
    def build(config: Config) -> tuple[Flamingo, Names]:
        p = read_idefics(config) if config["model_type"] == "idefics" else read_flamingo(config)
        return Flamingo(p.encoder, p.resampler, p.gates, p.language, p.image_token, p.drop_first), p.names

    def make_processor(self) -> Processor:
        tokenizer = Tokenizer.from_files(self.checkpoint.files)
        pictures = self.checkpoint.image_processor
        plain = COMPLETION
        if self.config["model_type"] == "idefics" and tokenizer:
            plain = IDEFICS if tokenizer.id_of(END_OF_UTTERANCE) is None else IDEFICS_INSTRUCT
            found = tokenizer.id_of("<image>")
            self.model.image_token = self.model.image_token if found is None else found
        special = tokenizer.special if tokenizer else {}
        return Processor(
            tokenizer,
            ImageTransform.from_config(pictures) if pictures else None,
            ChatTemplate(self.checkpoint.chat_template or plain, special=special),
            context=self.language.context,
            image_token=self.model.image_token,
            image_vectors=1,  # the place from which on a picture is seen
        )

    @property
    def language(self) -> LanguageModel:
        return self.model.language

    @property
    def _ends(self) -> list[int]:
        marks = (self.processor.tokenizer.id_of(mark) for mark in (END_OF_CHUNK, END_OF_UTTERANCE))
        return [*super()._ends, *(mark for mark in marks if mark is not None)]

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        return self.model.encode(self.processor.pictures(images).to(self.device, self.dtype))

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.language.embed.words(ids)

    def source(self, ids: Tensor, shown: Sequence[Shown]) -> Source | None:
        vectors = self._look(shown)
        return self.model.source(ids, None if vectors is None else vectors.view(len(shown), -1, vectors.shape[-1]))


def flamingo(
    vision: Family[Any],
    language: Chat[LanguageModel],
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    every: int = 1,
    latents: int = 64,
    depth: int = 6,
    heads: int = 8,
    head_dim: int = 64,
    allow_pickle: bool = False,
) -> FlamingoChat:
    """A Flamingo over an image encoder (or CLIP's image tower) and a language model, which gets a gated layer before
    every `every`-th of its own.

    What is new between them, a resampler of `depth` blocks that leaves `latents` vectors of a picture, and the gated
    layers, is untrained, and the gates closed; or it is OpenFlamingo's, of the sizes given by default, from a
    `checkpoint`: its authors' `checkpoint.pt`, or a repository on the hub that has one. That is a pickle, of which
    plain tensors alone are read, if `allow_pickle`. The encoder's and the language model's weights are taken over,
    not copied.

    Raises CheckpointError for a checkpoint that these parts do not fit.
    """
    depth_of_language = _blocks(language).depth
    if not 1 <= every <= depth_of_language:
        raise InputError(f"every is {every}; the language model has {depth_of_language} layers to put gates before")
    new = {} if checkpoint is None else read_checkpoint_pt(checkpoint, every, allow_pickle)
    sizes = {"latents": latents, "depth": depth, "heads": heads, "head_dim": head_dim}
    return _join(vision, language, {"cross_attn_every_n_layers": every, "resampler_config": sizes}, new)


def llama_adapter(
    vision: Family[Any],
    language: Chat[LanguageModel],
    *,
    layers: int | None = None,
    prompts: int = 10,
    depth: int = 2,
    heads: int = 8,
    head_dim: int = 64,
) -> FlamingoChat:
    """A LLaMA-Adapter (Zhang et al., 2024): in each of the last `layers` blocks of a language model, by default all
    but the first two, its own attention also looks at `prompts` learned vectors, to which those that a resampler of
    `depth` blocks leaves of the picture are added. A gate in each begins closed. Parts are taken as by `flamingo`."""
    most = _blocks(language).depth
    layers = max(1, most - 2) if layers is None else layers
    if not 1 <= layers <= most:
        raise InputError(f"layers is {layers}; the language model has {most}")
    sizes = {"latents": prompts, "depth": depth, "heads": heads, "head_dim": head_dim}
    return _join(vision, language, {"adapter_layers": layers, "resampler_config": sizes}, {})


def _blocks(language: Chat[LanguageModel]) -> TransformerConfig:
    if not hasattr(language.model, "body"):
        raise InputError(f"{language!r} is run by transformers, and gates go before blocks of the core's own models")
    return language.model.body.config


def _join(
    vision: Family[Any], language: Chat[LanguageModel], settings: dict[str, Any], new: dict[str, Tensor]
) -> FlamingoChat:
    """`settings` say what is put between, `new` are its tensors, none where it is untrained."""
    (tower, seen), pretrained = vision.image_tower(), bool(new)
    tokenizer = language.processor.tokenizer
    end, token = (tokenizer.add_special(mark) for mark in (END_OF_CHUNK, "<image>"))  # as OpenFlamingo numbers them
    tower_names = settle(find_part(IMAGE_ENCODERS, seen).table(seen))
    tensors = _under("vision_encoder.", published_weights(tower, Checkpoint(seen, tower_names)))
    tensors |= _under("lang_encoder.", published_weights(language.model, language.checkpoint))
    tables = to_theirs(("embed.vectors.weight", "head.weight"), language.checkpoint.names)
    words, head = (f"lang_encoder.{name}" for name in tables)
    needed = max(end, token) + 1
    rows = len(new[words]) if words in new else max(needed, len(tensors[words]))
    if rows < needed:
        raise CheckpointError(f"the checkpoint knows {rows} words, and with its marks this tokenizer has {needed}")
    tensors |= {name: with_rows(tensors[name], rows) for name in (words, head) if name in tensors}
    config = {
        "model_type": "flamingo",
        "vision_config": seen,
        "text_config": {**language.config, "vocab_size": rows},
        **settings,
        "image_token_id": token,
    }
    with torch.device("meta"):
        model, names = FlamingoChat.build(config)
    if not pretrained:
        resampler, gates = new_parts(config, tower.dim, _blocks(language))
        fresh = nn.ModuleDict({"resampler": resampler, "gates": gates})
        initialise(fresh)
        new = published_weights(fresh, Checkpoint(config, settle(names)))
    stored = {name: Stored(tuple(tensor.shape), tensor.detach) for name, tensor in (tensors | new).items()}
    names, spare = load_weights(model, names, stored, language.dtype, FlamingoChat.spare_under)
    files = {**language.checkpoint.files, **tokenizer.to_files()}
    files["preprocessor_config.json"] = json.dumps(vision.checkpoint.image_processor).encode()
    template = None if pretrained else language.checkpoint.chat_template
    files["chat_template.jinja"] = (template or COMPLETION).encode()
    return FlamingoChat(model, Checkpoint(config, names, files, spare))


def _under(prefix: str, named: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: thing for name, thing in named.items()}
