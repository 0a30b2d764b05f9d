"""The families: each file shows in a page how pieces make a model, and what it can do for a person."""

from __future__ import annotations

import os
from typing import Any

import torch

from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.store import read_config
from panmodal.errors import CheckpointError, suggest
from panmodal.families.base import Family
from panmodal.families.blip import BlipHybrid
from panmodal.families.chat import Chat
from panmodal.families.clip import Contrastive
from panmodal.families.language import LanguageChat
from panmodal.families.llava import LlavaChat, compose
from panmodal.families.towers import ImageTower, TextTower

# model_type in config.json -> the family that reads it.
FAMILIES: dict[str, type[Family[Any]]] = {
    "clip": Contrastive,
    "siglip": Contrastive,
    "llava": LlavaChat,
    "blip": BlipHybrid,
    "clip_vision_model": ImageTower,
    "siglip_vision_model": ImageTower,
    "vit": ImageTower,
    "dinov2": ImageTower,
    "clip_text_model": TextTower,
    "siglip_text_model": TextTower,
    "bert": TextTower,
    "gpt2": LanguageChat,
    "opt": LanguageChat,
    "llama": LanguageChat,
    "mistral": LanguageChat,
    "qwen2": LanguageChat,
    "qwen3": LanguageChat,
}


def load(
    name: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
) -> Any:
    """Loads a model: built-in (`tiny/…`), a local folder, or `owner/name[@revision]` on the hub.

    What comes back is a family object: `.model` (tensors in, tensors out), `.processor`, and verbs.
    `dtype` is by default float32 on a CPU and the checkpoint's own elsewhere. Weights are read from
    safetensors; `allow_pickle` reads a pickle of plain tensors where there is nothing else.
    Raises CheckpointError, naming what was found and what was expected.
    """
    folder = locate(name, allow_pickle)
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{folder} has model_type {kind!r}, which panmodal does not read{suggest(str(kind), FAMILIES)}"
        )
    if dtype is None:
        own = getattr(torch, str(config.get("dtype", config.get("torch_dtype", "float32"))), torch.float32)
        dtype = torch.float32 if device == "cpu" else own
    return FAMILIES[kind].read(folder, os.fspath(name), dtype, allow_pickle).to(device)


__all__ = [
    "FAMILIES",
    "BlipHybrid",
    "Chat",
    "Contrastive",
    "Family",
    "ImageTower",
    "LanguageChat",
    "LlavaChat",
    "TextTower",
    "compose",
    "load",
]
