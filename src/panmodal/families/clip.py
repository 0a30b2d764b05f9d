"""Contrastive: two towers and one space (CLIP, Radford et al., 2021; SigLIP, Zhai et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.checkpoints.names import Names, To, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, TEXT_ENCODERS, Config, find_part
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Image
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder, TextEncoder
from panmodal.errors import InputError
from panmodal.families.base import Family, embed_either, unit


class Clip(nn.Module):
    """Image and text towers, each with a projection into the shared space.

    The similarity of a pair is `exp(scale)` times the cosine, plus SigLIP's `bias`.
    """

    def __init__(self, image: ImageEncoder, text: TextEncoder, dim: int | None, biased: bool = False) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.image_projection = nn.Linear(image.dim, dim, bias=False) if dim else nn.Identity()
        self.text_projection = nn.Linear(text.dim, dim, bias=False) if dim else nn.Identity()
        self.scale = nn.Parameter(torch.tensor(2.6592))  # log(1 / 0.07)
        self.bias = nn.Parameter(torch.tensor(0.0)) if biased else None

    def embed_images(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> [B, dim]"""
        out: Tensor = self.image_projection(self.image.pooled(images))
        return out

    def embed_texts(self, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """ids [B, T] -> [B, dim]"""
        out: Tensor = self.text_projection(self.text.pooled(ids, pad))
        return out

    def forward(self, images: Tensor, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """images [N, 3, height, width], ids [M, T] -> logits [N, M]"""
        return self.logits(self.embed_images(images), self.embed_texts(ids, pad))

    def logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Embeddings [N, dim], [M, dim] -> [N, M]"""
        normalise = nn.functional.normalize
        cosines = normalise(images, dim=-1) @ normalise(texts, dim=-1).T
        logits = self.scale.exp() * cosines
        return logits if self.bias is None else logits + self.bias


class Contrastive(Family[Clip]):
    """Embeds pictures and texts in one space, and so classifies and searches."""

    @staticmethod
    def build(config: Config) -> tuple[Clip, Names]:
        kind, vision, text = config["model_type"], config["vision_config"], config["text_config"]
        seen = find_part(IMAGE_ENCODERS, vision, f"{kind}_vision_model")
        read = find_part(TEXT_ENCODERS, text, f"{kind}_text_model")
        sigmoid = kind == "siglip"
        dim = None if sigmoid else config.get("projection_dim", 512)
        names = {
            **under("", seen.table(vision), "image."),
            **under("", read.table(text), "text."),
            "visual_projection": "image_projection",
            "text_projection": "text_projection",
            "logit_scale": To(("scale",), ones=1) if sigmoid else "scale",
            "logit_bias": To(("bias",), ones=1),
        }
        return Clip(seen.build(vision), read.build(text), dim, sigmoid), names

    def make_processor(self) -> Processor:
        pictures = self.checkpoint.image_processor
        text = self.model.text
        assert text.embed.positions is not None
        return Processor(
            Tokenizer.from_files(self.checkpoint.files),
            ImageTransform.from_config(pictures) if pictures else None,
            context=text.embed.positions.num_embeddings,
            fixed=text.pool_at == "last",
        )

    def image_tower(self) -> tuple[ImageEncoder, dict[str, Any]]:
        kind = f"{self.config['model_type']}_vision_model"
        return self.model.image, {"model_type": kind, **self.config["vision_config"]}

    def embed(self, items: Sequence[Image | str], truncate: bool = False) -> Tensor:
        """Pictures and texts, in any order -> [N, dim] float32 at unit length.

        A text longer than the model reads raises InputError, or is cut if `truncate`.
        """
        for item in items:
            if not isinstance(item, Image | str):
                raise InputError(f"{self.name or 'this model'} embeds pictures and texts, not {item!r}")
        return embed_either(self, self.model.embed_images, self.model.embed_texts, items, truncate)

    def classify(self, image: Image, labels: Sequence[str], templates: Sequence[str] = ()) -> dict[str, float]:
        """How likely each label is to describe the picture, by the likeness of `a photo of a {label}`.

        CLIP's probabilities sum to one; SigLIP judges each label on its own. Several templates are
        averaged, as CLIP's authors do.
        """
        if not labels:
            raise InputError("classify needs at least one label")
        texts = self.embed_labels(labels, templates)
        with torch.inference_mode():
            logits = self.model.logits(self.embed([image]).to(self.device), texts.to(self.device))[0].float()
        odds = logits.softmax(-1) if self.model.bias is None else logits.sigmoid()
        return dict(zip(labels, odds.tolist(), strict=True))

    def embed_labels(self, labels: Sequence[str], templates: Sequence[str] = ()) -> Tensor:
        """Each label in every template, averaged -> [labels, dim] at unit length."""
        templates = templates or self.config.get("zero_shot_templates") or ("a photo of a {}",)
        vectors = self.embed([t.format(label) for label in labels for t in templates])
        return unit(vectors.view(len(labels), len(templates), -1).mean(dim=1))
