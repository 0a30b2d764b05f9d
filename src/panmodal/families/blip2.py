"""Image encoder -> Q-Former -> linear -> language model: BLIP-2 (Li et al., 2023), InstructBLIP (Dai et al., 2023),
whose Q-Former reads the instruction, too, and MiniGPT-4 (Zhu et al., 2023)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Cache, Source
from panmodal.checkpoints.blip2 import MINIGPT4, build_seeing
from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.language import find_language
from panmodal.checkpoints.names import Names, settle, under
from panmodal.checkpoints.parts import Config, Part, only
from panmodal.checkpoints.store import (
    Checkpoint,
    as_stored,
    load_weights,
    open_weights,
    read_config,
    read_pickle,
    read_sidecars,
)
from panmodal.checkpoints.t5 import T5
from panmodal.connectors import LinearConnector, QFormer
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Encoded, Processor
from panmodal.data.sample import Batch, Guise, Image, Message, user
from panmodal.data.template import ChatTemplate
from panmodal.data.tiles import Size
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder
from panmodal.errors import CheckpointError, InputError
from panmodal.families.chat import Chat
from panmodal.language import LanguageModel, splice
from panmodal.transformer import initialise

_TURNS = (  # pictures stand before the start token
    "{% for message in messages %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{{ bos_token if loop.first else ' ' }}"
    "{% set text = message['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join %}"
    "{{ SAID }}{{ eos_token if message['role'] == 'assistant' }}{% endfor %}"
)
INSTRUCT_TURNS = _TURNS.replace("SAID", "text")
TURNS = _TURNS.replace(  # of base models, which go on from a text; a question is put to them as the authors do
    "SAID", "'Question: ' + text + ' Answer:' if message['role'] == 'user' and text.endswith('?') else text"
)
MINIGPT4_TURNS = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}###Assistant: {% elif message['role'] == 'user' %}"
    "{{ '' if loop.previtem and loop.previtem['role'] == 'assistant' else '###' }}Human: {% endif %}"
    "{% for part in message['content'] %}"
    "{{ '<Img><ImageHere></Img> ' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '###' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}###Assistant:{% endif %}"
)


class Blip2(nn.Module):
    """`image_token` is the id in whose places a picture's vectors go, negative until the tokenizer has one."""

    def __init__(self, encoder: ImageEncoder, qformer: QFormer, language: LanguageModel, image_token: int) -> None:
        super().__init__()
        self.encoder, self.qformer, self.language = encoder, qformer, language
        self.connector = LinearConnector(qformer.dim, language.dim)
        self.image_token = image_token

    def encode(self, images: Tensor, instructions: Batch | None = None) -> Tensor:
        """images [N, 3, height, width], for InstructBLIP N texts to read them by -> [N, Q, D]"""
        asked = (None, None) if instructions is None else (instructions.ids, instructions.pad)
        found = self.qformer(Source(self.encoder(images)), *asked)[:, : len(self.qformer.queries)]
        out: Tensor = self.connector(found)
        return out

    def vectors(self, ids: Tensor, media: Tensor | None = None) -> Tensor:
        """ids [B, T], picture vectors [..., D] in reading order -> [B, T, D]"""
        if media is None:
            return self.language.embed.words(ids)
        slots = ids == self.image_token
        return splice(self.language.embed.words(ids.masked_fill(slots, 0)), slots, media)  # it may be no word's id

    def forward(
        self,
        ids: Tensor,
        images: Tensor | None = None,
        pad: Tensor | None = None,
        cache: Cache | None = None,
        instructions: Batch | None = None,
    ) -> Tensor:
        """ids [B, T], images [N, 3, height, width] in reading order -> logits [B, T, vocab]"""
        return self.language.logits(self.read(Batch(ids, pad, images=images, instructions=instructions), cache))

    def read(self, batch: Batch, cache: Cache | None = None) -> Tensor:
        """-> hidden states [B, T, D]"""
        if self.language.reads_whole:
            raise InputError("an encoder-decoder reads prompts apart from answers; tune a BLIP-2 over OPT or LLaMA")
        images, asked = batch.images, batch.instructions
        x = self.vectors(batch.ids, None if images is None else self.encode(images, asked))
        return self.language.decode(x, batch.pad, cache)


class Blip2Chat(Chat[Blip2]):
    """Says what is on pictures, and answers questions about them."""

    turns = TURNS

    @staticmethod
    def build(config: Config) -> tuple[Blip2, Names]:
        only(config["qformer_config"], use_qformer_text_input=False)
        text = config["text_config"]
        spoken: Part[Any] = T5 if text.get("model_type") == "t5" else find_language(text, "opt")
        encoder, qformer, names = build_seeing(config, reads_text=config["model_type"] == "instructblip")
        names = {
            **names,
            **under("language_model.", spoken.table(text), "language."),
            "language_projection": "connector.project",
        }
        token = config.get("image_token_index")
        token = -1 if token is None else token
        return Blip2(encoder, qformer, spoken.build(text), token), names

    def make_processor(self) -> Processor:
        model, pictures = self.model, self.checkpoint.image_processor
        tokenizer = Tokenizer.from_files(self.checkpoint.files)
        if tokenizer and model.image_token < 0:  # checkpoints from before pictures had a token
            model.image_token = tokenizer.add_special("<image>")
        word = (tokenizer.backend.id_to_token(model.image_token) if tokenizer else None) or "<image>"
        turns = self.turns
        if model.language.reads_whole:  # as one text, which ends
            turns = turns.replace("message['role'] == 'assistant' }}", "loop.last }}")
        source = self.checkpoint.chat_template or turns.replace("<image>", word)
        return Processor(
            tokenizer,
            ImageTransform.from_config(pictures) if pictures else None,
            ChatTemplate(source, word, self._marks(tokenizer) if tokenizer else {}),
            context=model.language.context,
            image_token=model.image_token,
            image_vectors=len(model.qformer.queries),
        )

    @property
    def language(self) -> LanguageModel:
        return self.model.language

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        return self.model.encode(self.processor.pictures(images).to(self.device, self.dtype))

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.model.vectors(ids, images)

    def caption(self, image: Image, prompt: str = "", **options: Any) -> str:
        """What the model says of a picture, going on from a `prompt` if there is one; options as for `reply`."""
        return self.reply(user(image, *([prompt] if prompt else [])), **options).text

    def caption_all(self, images: Sequence[Image], prompt: str = "", rows: int = 16, **options: Any) -> list[str]:
        """Captions of many pictures, `rows` of them at a time; each is what `caption` would say."""
        asked = [[user(image, *([prompt] if prompt else []))] for image in images]
        return [reply.text for reply in self.reply_all(asked, rows, **options)]

    def _marks(self, tokenizer: Tokenizer) -> dict[str, str]:
        """The special tokens, the start only where the tokenizer puts one, and what ends an answer: in BLIP-2's OPT
        a new line."""
        start, marks = tokenizer.special.get("bos_token"), dict(tokenizer.special)
        if start is None or tokenizer.encode("")[:1] != [tokenizer.id_of(start)]:
            marks["bos_token"] = ""
        if self._spoken_ends:
            marks["eos_token"] = tokenizer.backend.decode(self._spoken_ends[:1], skip_special_tokens=False)
        return marks

    @property
    def _spoken_ends(self) -> list[int]:
        ends = self.config["text_config"].get("eos_token_id")
        return ends if isinstance(ends, list) else [ends] if ends is not None else []

    @property
    def _ends(self) -> list[int]:
        return [*super()._ends, *self._spoken_ends]


class Asked(Guise):
    """A picture, and the words of its message, by which InstructBLIP's Q-Former looks at it."""

    def __init__(self, image: Image, text: str) -> None:
        super().__init__(image)
        self.text = text

    @cached_property
    def key(self) -> str:
        return f"{self.image.key} {self.text}"


class InstructProcessor(Processor):
    """The `plain` one, and `questions`, which makes the Q-Former's ids of what is asked about each picture."""

    def __init__(self, plain: Processor, questions: Processor) -> None:
        super().__init__(
            plain._tokenizer,
            plain._images,
            plain._template,
            context=plain.context,
            image_token=plain.image_token,
            image_vectors=plain.image_vectors,
        )
        self.questions = questions

    def encode(self, messages: Sequence[Message], reply: bool = False) -> Encoded:
        asked = [
            Message(m.role, tuple(Asked(p, m.text) if isinstance(p, Image) else p for p in m.parts)) for m in messages
        ]
        return super().encode(asked, reply)

    def batch(self, encoded: Sequence[Encoded], left: bool = False) -> Batch:
        images = [image for e in encoded for image in e.images]
        return replace(super().batch(encoded, left), instructions=self.instructions(images) if images else None)

    def instructions(self, images: Sequence[Image]) -> Batch:
        return self.questions.texts([image.text if isinstance(image, Asked) else "" for image in images])


class InstructBlipChat(Blip2Chat):
    """Follows instructions about pictures. The Q-Former looks at a picture by the words of its message."""

    turns = INSTRUCT_TURNS
    processor: InstructProcessor

    def make_processor(self) -> InstructProcessor:
        tokenizer = Tokenizer.from_files(self.checkpoint.under("qformer_tokenizer/"))
        questions = Processor(tokenizer, context=self.model.qformer.context)
        return InstructProcessor(super().make_processor(), questions)

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        pixels = self.processor.pictures(images).to(self.device, self.dtype)
        return self.model.encode(pixels, self.processor.instructions(images).to(self.device))


def bootstrap(
    vision: str | os.PathLike[str], language: Chat[LanguageModel], *, allow_pickle: bool = False
) -> Blip2Chat:
    """The image encoder and the Q-Former of a BLIP-2 before another language model, as in BLIP-2's second stage.

    `vision` names a BLIP-2 of any kind, of which nothing else is read; the language model's weights are taken over,
    not copied; the linear map between the two is untrained.
    """
    return _join(vision, language, "<image>", language.checkpoint.chat_template, allow_pickle)


def minigpt4(
    vision: str | os.PathLike[str],
    language: Chat[LanguageModel],
    projection: str | os.PathLike[str] | None = None,
    *,
    allow_pickle: bool = False,
) -> Blip2Chat:
    """MiniGPT-4 from its parts: the image encoder and Q-Former of a BLIP-2, one linear map, and Vicuna.

    `vision` names a BLIP-2 (the authors took `Salesforce/blip2-flan-t5-xxl`), of which nothing else is read.
    `projection` is the authors' checkpoint of the linear map (`prerained_minigpt4_7b.pth`), a pickle, which
    `allow_pickle` lets be opened, as plain tensors; without one the map is untrained. It is saved as a BLIP-2.
    """
    family = _join(vision, language, "<ImageHere>", MINIGPT4_TURNS, allow_pickle, stop="###")
    if projection is not None:
        stored = read_pickle(Path(projection), allow_pickle).get("model")
        if not isinstance(stored, dict):
            raise CheckpointError(f"{projection} has no 'model', so it is no checkpoint of MiniGPT-4's")
        load_weights(family.model.connector, MINIGPT4, as_stored(stored), family.dtype)
    return family


def _join(
    vision: str | os.PathLike[str],
    language: Chat[LanguageModel],
    word: str,
    template: str | None,
    allow_pickle: bool,
    stop: str = "",
) -> Blip2Chat:
    folder = locate(vision, allow_pickle)
    seen = read_config(folder)
    if seen.get("model_type") != "blip-2":
        raise InputError(f"{folder} is of model_type {seen.get('model_type')!r}; vision must be a BLIP-2, 'blip-2'")
    tokenizer = language.processor.tokenizer
    token = tokenizer.add_special(word)
    rows = max(token + 1, len(language.model.embed.vectors.weight))
    config = {
        "model_type": "blip-2",
        "architectures": ["Blip2ForConditionalGeneration"],
        "vision_config": seen["vision_config"],
        "qformer_config": {**seen["qformer_config"], "use_qformer_text_input": False},
        "text_config": {**language.config, "vocab_size": rows},
        "num_query_tokens": seen.get("num_query_tokens", 32),
        "image_token_index": token,
    }
    with torch.device("meta"):
        model, names = Blip2Chat.build(config)
    model.connector = LinearConnector(model.qformer.dim, model.language.dim)
    initialise(model.connector)
    with open_weights(folder, allow_pickle) as stored:
        kept = {n: t for n, t in stored.items() if n.startswith(("vision_model.", "qformer.", "query_tokens"))}
        seeing = nn.ModuleDict({"encoder": model.encoder, "qformer": model.qformer})
        load_weights(seeing, names, kept, language.dtype, spare_under=("qformer.",))
    model.language.load_state_dict(language.model.grown(rows), assign=True)
    model.language.tie()
    files = {**language.checkpoint.files, **tokenizer.to_files()}
    files |= {
        n: c for n, c in read_sidecars(folder).items() if n in ("preprocessor_config.json", "processor_config.json")
    }
    if template:
        files["chat_template.jinja"] = template.encode()
    if stop:
        said = tokenizer.decode(tokenizer.encode(stop, special=False))  # as it looks in what is decoded
        told = {**language.checkpoint.json("generation_config.json"), "stop_strings": [f" {said}", said]}
        files["generation_config.json"] = json.dumps(told).encode()
    return Blip2Chat(model, Checkpoint(config, settle(names), files)).to(language.device)
