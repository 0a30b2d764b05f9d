"""One tower alone: an image encoder (ViT, DINOv2, the image side of CLIP or SigLIP) or a text
encoder (BERT, the text side)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.checkpoints.names import SPARE, Names, under
from panmodal.checkpoints.parts import IMAGE_ENCODERS, TEXT_ENCODERS, Config, find_part
from panmodal.data.pictures import ImageTransform
from panmodal.data.processor import Processor
from panmodal.data.sample import Image
from panmodal.data.tokens import Tokenizer
from panmodal.encoders import ImageEncoder, TextEncoder
from panmodal.errors import InputError
from panmodal.families.base import Family, embed_images, embed_texts


class Classifier(nn.Module):
    """An image encoder with a linear head over its class token; DINOv2's reads the mean of the
    patches, too."""

    def __init__(self, encoder: ImageEncoder, classes: int, with_mean: bool) -> None:
        super().__init__()
        self.encoder, self.with_mean = encoder, with_mean
        self.head = nn.Linear(encoder.dim * (1 + with_mean), classes) if classes else None

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> tokens [B, T, D]"""
        out: Tensor = self.encoder(images)
        return out

    def logits(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> [B, classes]"""
        if self.head is None:
            raise InputError("this checkpoint has no classification head; embed pictures with it, or use CLIP")
        tokens = self(images)
        features = tokens[:, 0]
        if self.with_mean:
            features = torch.cat([features, tokens[:, 1:].mean(dim=1)], dim=-1)
        out: Tensor = self.head(features)
        return out


class ImageTower(Family[Classifier]):
    """Embeds pictures; classifies them where the checkpoint was trained to."""

    @staticmethod
    def build(config: Config) -> tuple[Classifier, Names]:
        part = find_part(IMAGE_ENCODERS, config)
        classifies = any("ForImageClassification" in name for name in config.get("architectures") or ())
        classes = len(config.get("id2label") or {0: "", 1: ""}) if classifies else 0
        names = {**under("", part.table(config), "encoder."), "classifier": "head", "visual_projection": SPARE}
        return Classifier(part.build(config), classes, config["model_type"] == "dinov2"), names

    def make_processor(self) -> Processor:
        pictures = self.checkpoint.image_processor
        return Processor(images=ImageTransform.from_config(pictures) if pictures else None)

    def image_tower(self) -> tuple[ImageEncoder, dict[str, Any]]:
        return self.model.encoder, self.config

    def embed(self, items: Sequence[Image]) -> Tensor:
        """Pictures -> [N, D] float32 at unit length, of the pooled token"""
        return embed_images(self, self.model.encoder.pooled, items)

    def classify(self, image: Image) -> dict[str, float]:
        """The probability of each class that the checkpoint names, likeliest first."""
        with torch.inference_mode():
            pixels = self.processor.pictures([image]).to(self.device, self.dtype)
            odds = self.model.logits(pixels)[0].float().softmax(-1)
        names = self.config.get("id2label") or {}
        best = odds.argsort(descending=True).tolist()
        return {str(names.get(str(i), i)): float(odds[i]) for i in best}


class TextTower(Family[TextEncoder]):
    """Embeds texts."""

    @staticmethod
    def build(config: Config) -> tuple[TextEncoder, Names]:
        part = find_part(TEXT_ENCODERS, config)
        return part.build(config), {**part.table(config), "text_projection": SPARE}

    def make_processor(self) -> Processor:
        assert self.model.embed.positions is not None
        return Processor(
            Tokenizer.from_files(self.checkpoint.files),
            context=self.model.embed.positions.num_embeddings,
            fixed=self.model.pool_at == "last",
        )

    def embed(self, items: Sequence[str], truncate: bool = False) -> Tensor:
        """Texts -> [N, D] float32 at unit length"""
        return embed_texts(self, self.model.pooled, items, truncate)
