"""A language model alone: GPT-2, GPT-NeoX, OPT, MPT, LLaMA, Vicuna, Mistral, Qwen, and those of `transformers`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from panmodal.checkpoints.language import find_language
from panmodal.checkpoints.names import Names
from panmodal.checkpoints.parts import Config
from panmodal.data.processor import Processor
from panmodal.data.sample import Image
from panmodal.data.template import PLAIN, ChatTemplate
from panmodal.data.tiles import Size
from panmodal.data.tokens import Tokenizer
from panmodal.errors import InputError
from panmodal.families.chat import Chat
from panmodal.language import LanguageModel


class LanguageChat(Chat[LanguageModel]):
    """Text in, text out. Without a chat template it goes on from the text, as a base model does."""

    @staticmethod
    def build(config: Config) -> tuple[LanguageModel, Names]:
        part = find_language(config)
        return part.build(config), part.table(config)

    def make_processor(self) -> Processor:
        tokenizer = Tokenizer.from_files(self.checkpoint.files)
        special = tokenizer.special if tokenizer else {}
        template = ChatTemplate(self.checkpoint.chat_template or PLAIN, special=special)
        return Processor(tokenizer, None, template, context=self.model.context)

    @property
    def language(self) -> LanguageModel:
        return self.model

    def encode_images(self, images: Sequence[Image], sizes: Sequence[Size] = ()) -> Tensor:
        raise InputError("a language model alone does not see pictures; compose one with an image encoder")

    def vectors(self, ids: Tensor, images: Tensor | None) -> Tensor:
        return self.model.embed.words(ids)
