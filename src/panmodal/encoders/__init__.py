"""Modality encoders: a medium in, features out, [B, T, D], and a pooled vector where one is wanted."""

from panmodal.encoders.grid import GridEncoder
from panmodal.encoders.image import ImageEncoder
from panmodal.encoders.text import TextEncoder

__all__ = ["GridEncoder", "ImageEncoder", "TextEncoder"]
