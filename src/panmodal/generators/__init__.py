"""Generators: from features and signals to media. Here masks (SAM's prompt encoder and decoder)."""

from panmodal.generators.masks import MaskDecoder, PromptEncoder

__all__ = ["MaskDecoder", "PromptEncoder"]
