"""Hybrid: pictures and texts in one space, and judged together, by one Q-Former (the first stage of BLIP-2,
Li et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.checkpoints.blip2 import build_seeing
from panmodal.checkpoints.names import Names
from panmodal.checkpoints.parts import Config
from panmodal.connectors import QFormer
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder
from panmodal.families.base import Family, embed_either, embed_images, embed_texts, encode_images, match_texts


class Blip2Matcher(nn.Module):
    """A picture is Q vectors, one for each query; a text is the vector of its first token."""

    def __init__(self, encoder: ImageEncoder, qformer: QFormer, dim: int) -> None:
        super().__init__()
        self.encoder, self.qformer = encoder, qformer
        self.image_projection, self.text_projection = nn.Linear(qformer.dim, dim), nn.Linear(qformer.dim, dim)
        self.match_head = nn.Linear(qformer.dim, 2)

    def embed_images(self, images: Tensor) -> Tensor:
        """images [N, 3, height, width] -> [N, Q, dim] at unit length"""
        return self.project_images(self.qformer(Source(self.encoder(images))))

    def embed_texts(self, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """ids [M, T] -> [M, dim] at unit length"""
        return self.project_texts(self.qformer(None, ids, pad))

    def project_images(self, queries: Tensor) -> Tensor:
        """Hidden states of the queries [N, Q, D] -> [N, Q, dim]"""
        return nn.functional.normalize(self.image_projection(queries), dim=-1)

    def project_texts(self, words: Tensor) -> Tensor:
        """Hidden states of texts [M, T, D] -> [M, dim]"""
        return nn.functional.normalize(self.text_projection(words[:, 0]), dim=-1)

    def similarity(self, images: Tensor, texts: Tensor) -> Tensor:
        """[N, Q, dim], [M, dim] -> [N, M], the cosine of the query that is nearest to the text"""
        return torch.einsum("nqd,md->nmq", images, texts).amax(dim=-1)

    def match(self, source: Source, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """Pictures' vectors and as many texts, ids [N, T] -> logits [N, 2]: no match, and match"""
        queries = self.qformer(source, ids, pad)[:, : len(self.qformer.queries)]
        out: Tensor = self.match_head(queries).mean(dim=1)
        return out

    def forward(self, images: Tensor, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """images [N, 3, height, width], ids [M, T] -> similarity [N, M]"""
        return self.similarity(self.embed_images(images), self.embed_texts(ids, pad))


class Blip2Retrieval(Family[Blip2Matcher]):
    """Finds pictures and texts that go together: quickly by `similarity`, better by `match`."""

    @staticmethod
    def build(config: Config) -> tuple[Blip2Matcher, Names]:
        encoder, qformer, names = build_seeing(config, reads_text=True)
        heads = {
            "vision_projection": "image_projection",
            "text_projection": "text_projection",
            "itm_head": "match_head",
        }
        return Blip2Matcher(encoder, qformer, config.get("image_text_hidden_size", 256)), {**names, **heads}

    def make_processor(self) -> Processor:
        pictures = self.checkpoint.image_processor
        return Processor(
            Tokenizer.from_files(self.checkpoint.files),
            ImageTransform.from_config(pictures) if pictures else None,
            context=self.model.qformer.context,
        )

    def embed(self, items: Sequence[Image | str], truncate: bool = False) -> Tensor:
        """Pictures and texts, in any order -> [N, dim] float32 at unit length; a picture is the mean of its queries.

        A text longer than the model reads raises InputError, or is cut if `truncate`.
        """
        return embed_either(
            self, lambda pixels: self.model.embed_images(pixels).mean(dim=1), self.model.embed_texts, items, truncate
        )

    def similarity(self, images: Sequence[Image], texts: Sequence[str], truncate: bool = False) -> Tensor:
        """How alike each picture and each text are, [N, M] float32: the cosine of the nearest query, on which the
        model was trained."""
        seen = embed_images(self, self.model.embed_images, images)
        return self.model.similarity(seen, embed_texts(self, self.model.embed_texts, texts, truncate))

    def match(self, image: Image, texts: Sequence[str], rows: int = 64) -> list[float]:
        """How likely each text is to fit the picture, each judged on its own in sight of it."""
        seen = encode_images(self, self.model.encoder, [image])

        def judge(batch: Batch) -> Tensor:
            return self.model.match(Source(seen.expand(len(batch.ids), -1, -1)), batch.ids, batch.pad)

        return match_texts(self, judge, texts, rows)
