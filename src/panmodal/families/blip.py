"""Hybrid: one model that embeds, matches and captions, or answers (BLIP, Li et al., 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.checkpoints.blip import (
    BLIP_DECODER,
    BLIP_ENCODER,
    BLIP_IMAGE,
    Layout,
    decoder_names,
    find_layout,
    heads_names,
)
from panmodal.checkpoints.names import Names, under
from panmodal.checkpoints.parts import Config, find_part
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Image, Message, as_conversation, assistant
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder, TextEncoder
from panmodal.encoders.text import Pooler
from panmodal.errors import InputError
from panmodal.families.base import Family, embed_either, encode_images, match_texts
from panmodal.generate import ENDED, Sampling, generate
from panmodal.language import LanguageModel
from panmodal.quick import quicken

DOES = {  # verb -> a published model that can
    "embed": "Salesforce/blip-itm-base-coco",
    "match": "Salesforce/blip-itm-base-coco",
    "caption": "Salesforce/blip-image-captioning-base",
    "answer": "Salesforce/blip-vqa-base",
    "reply": "Salesforce/blip-vqa-base",
}


class Blip(nn.Module):
    """An image encoder and, where `layout` has them, what reads and what says texts.

    `text` is a BERT whose blocks may look at a picture: it embeds a text alone, and judges or reads it in
    sight of one. `decoder`, the same but causal, says a caption in sight of a picture, or an answer in sight
    of the question as `text` has read it; what it says lies between the tokens `start` and `end`.
    """

    def __init__(
        self,
        image: ImageEncoder,
        text: TextEncoder | None,
        decoder: LanguageModel | None,
        layout: Layout,
        dim: int,
        start: int,
        end: int,
    ) -> None:
        super().__init__()
        self.image, self.text, self.decoder = image, text, decoder
        self.layout, self.start, self.end = layout, start, end
        if text is not None and layout.contrast:
            self.image_projection = nn.Linear(image.dim, dim, bias=not layout.first)
            self.text_projection = nn.Linear(text.dim, dim, bias=not layout.first)
        if layout.scale:
            self.scale = nn.Parameter(torch.tensor(2.6592))  # log(1 / 0.07)
        if text is not None and layout.match:
            self.match_head = nn.Linear(text.dim, 2)

    def embed_images(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> [B, dim]"""
        return self.embed_tokens(self.image.first(images))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Image tokens [B, P, D] -> [B, dim]"""
        seen = tokens[:, 0]
        if self.layout.first:
            seen = self.image.body.norm(seen)  # once more
        out: Tensor = self.image_projection(seen)
        return out

    def embed_texts(self, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """ids [B, T] -> [B, dim]"""
        assert self.text is not None
        out: Tensor = self.text_projection(self.text.pooled(ids, pad))
        return out

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings [N, dim], [M, dim] -> [N, M]"""
        normalise = nn.functional.normalize
        return self.scale.exp() * normalise(images, dim=-1) @ normalise(texts, dim=-1).T

    def match(self, source: Source, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """Image tokens [B or 1, P, D], ids [B, T] -> logits [B, 2] of not fitting and fitting"""
        assert self.text is not None
        out: Tensor = self.match_head(self.text.pooled(ids, pad, source))
        return out

    def read(self, source: Source, ids: Tensor, pad: Tensor | None = None) -> Source:
        """Image tokens [B, P, D], questions [B, T] -> what the decoder looks at to answer, [B, T, D]"""
        assert self.text is not None
        return Source(self.text(ids, pad, source), None if pad is None else pad[:, None, None].bool())


def share(text: TextEncoder, decoder: LanguageModel) -> None:
    """Makes the decoder use the encoder's weights for all but self-attention, as BLIP is pre-trained."""
    decoder.embed = text.embed
    for block, mine in zip(text.body.blocks, decoder.body.blocks, strict=True):
        for name in ("cross", "cross_norm", "mlp", "mlp_norm"):
            setattr(mine, name, getattr(block, name))
    decoder.tie()


class BlipHybrid(Family[Blip]):
    """Embeds, matches, captions or answers: what its checkpoint was trained for (`does`)."""

    @staticmethod
    def build(config: Config) -> tuple[Blip, Names]:
        layout, vision = find_layout(config), config["vision_config"]
        seen = find_part(BLIP_IMAGE, vision, "blip_vision_model")
        image = seen.build(vision)
        words = {**BLIP_ENCODER.defaults, **config["text_config"], "encoder_hidden_size": image.dim}
        text = BLIP_ENCODER.build(words) if layout.contrast or layout.answer else None
        decoder = BLIP_DECODER.build(words) if layout.caption or layout.answer else None
        tied = False
        if text is not None and decoder is not None and config.get("tie_encoder_decoder"):
            share(text, decoder)
            tied = True
        if text is not None and layout.first:
            text.head = Pooler(text.dim)
        dim = config.get("projection_dim", 512) if layout.first else config.get("image_text_hidden_size", 256)
        names = {
            **under("", seen.table(vision), "image."),
            **under("text_model." if layout.first else "text_encoder.", BLIP_ENCODER.table(words), "text."),
            **decoder_names(BLIP_DECODER.table(words), tied),
            **heads_names(layout),
        }
        return Blip(image, text, decoder, layout, dim, words["bos_token_id"], words["sep_token_id"]), names

    def make_processor(self) -> Processor:
        pictures = self.checkpoint.image_processor
        text = {**BLIP_ENCODER.defaults, **self.config["text_config"]}
        return Processor(
            Tokenizer.from_files(self.checkpoint.files),
            ImageTransform.from_config(pictures) if pictures else None,
            context=text["max_position_embeddings"],
        )

    def image_tower(self) -> tuple[ImageEncoder, dict[str, Any]]:
        return self.model.image, {"model_type": "blip_vision_model", **self.config["vision_config"]}

    def does(self, verb: str) -> bool:
        layout = self.model.layout
        has = {"embed": layout.contrast, "match": layout.match, "caption": layout.caption}
        return has.get(verb, layout.answer) if verb in DOES else super().does(verb)

    def embed(self, items: Sequence[Image | str], truncate: bool = False) -> Tensor:
        """Pictures and texts, in any order -> [N, dim] float32 at unit length.

        A text longer than the model reads raises InputError, or is cut if `truncate`.
        """
        self._must("embed")
        return embed_either(self, self.model.embed_images, self.model.embed_texts, items, truncate)

    def match(self, image: Image, texts: Sequence[str], rows: int = 64) -> list[float]:
        """How likely each text is to fit the picture, each judged on its own in sight of it."""
        self._must("match")
        source = Source(encode_images(self, self.model.image, [image]))
        return match_texts(self, lambda batch: self.model.match(source, batch.ids, batch.pad), texts, rows)

    def caption(self, image: Image, prompt: str = "", **options: Any) -> str:
        """What the picture shows; a `prompt` begins the caption. Options are those of `Sampling`."""
        return self.caption_all([image], prompt, **options)[0]

    def caption_all(self, images: Sequence[Image], prompt: str = "", rows: int = 32, **options: Any) -> list[str]:
        """Captions of many pictures, `rows` of them at a time; each is what `caption` would say."""
        self._must("caption")
        begun = self.processor.tokenizer.encode(prompt)[1:-1]
        said: list[str] = []
        for start in range(0, len(images), rows):
            tokens = encode_images(self, self.model.image, images[start : start + rows])
            said += self._say(Source(tokens), len(tokens), begun, options)
        return said

    def answer(self, image: Image, question: str, **options: Any) -> str:
        """The answer to a question about the picture. Options are those of `Sampling`."""
        self._must("answer")
        with torch.inference_mode():
            batch = self.processor.texts([question]).to(self.device)
            read = self.model.read(Source(encode_images(self, self.model.image, [image])), batch.ids)
        return self._say(read, 1, [], options)[0]

    def reply(self, said: str | Message | Iterable[Message], *, thoughts: bool = False, **options: Any) -> Message:
        """`answer` for whoever asks all models alike: one question about one picture. There are no thoughts."""
        messages = as_conversation(said)
        images = [image for message in messages for image in message.images]
        if len(messages) != 1 or len(images) != 1:
            raise InputError(
                f"BLIP answers one question about one picture, and these are {len(messages)} messages with "
                f"{len(images)} pictures; use a model that converses"
            )
        return assistant(self.answer(images[0], messages[0].text, **options))

    def quicken(self) -> Self:
        """Makes a float32 model on a CPU caption and answer quicker, from further copies of the decoder's weights; see
        `QuickLinear` for what that costs."""
        if self.model.decoder is not None:
            quicken(self.model.decoder)
        return self

    def _say(self, source: Source, rows: int, begun: list[int], options: dict[str, Any]) -> list[str]:
        """What the decoder says in sight of each row of a source, after the tokens `begun`"""
        decoder = self.model.decoder
        assert decoder is not None
        prompt = [self.model.start, *begun]
        sampling = Sampling.fitting(options, len(prompt), decoder.context)
        ids = torch.tensor([prompt] * rows, device=self.device)
        with torch.inference_mode():
            x = decoder.embed.words(ids)
        tokens = torch.stack(list(generate(decoder, ids, x, sampling, [self.model.end], source=source)), dim=1)
        said = []
        for row in tokens.tolist():
            text = self.processor.tokenizer.decode([*begun, *(token for token in row if token != ENDED)])
            for stop in sampling.stop:
                text = text.partition(stop)[0]
            said.append(text)
        return said

    def _must(self, verb: str) -> None:
        if not self.does(verb):
            kind = self.config["architectures"][0]
            raise InputError(f"{self.name or 'this model'} is a {kind}, which does not {verb}; {DOES[verb]} does")
