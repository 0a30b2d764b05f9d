"""The families: each file shows in a page how pieces make a model, and what it can do for a person."""

from __future__ import annotations

import os
from typing import Any

import torch

from panmodal.checkpoints.adapters import CONFIG as ADAPTER
from panmodal.checkpoints.adapters import base_of
from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.parts import Config
from panmodal.checkpoints.store import read_config
from panmodal.errors import CheckpointError, InputError, suggest
from panmodal.families.base import Family
from panmodal.families.blip import BlipHybrid
from panmodal.families.blip2 import Blip2Chat, InstructBlipChat, bootstrap, minigpt4
from panmodal.families.blip2_retrieval import Blip2Retrieval
from panmodal.families.chat import Chat
from panmodal.families.clip import Contrastive
from panmodal.families.flamingo import FlamingoChat, flamingo
from panmodal.families.imagebind import Binding
from panmodal.families.language import LanguageChat
from panmodal.families.llava import LlavaChat, compose
from panmodal.families.sam import Segmenter
from panmodal.families.towers import ImageTower, TextTower

# model_type in config.json, or an architecture that means something else by it -> the family that reads it.
FAMILIES: dict[str, type[Family[Any]]] = {
    "clip": Contrastive,
    "siglip": Contrastive,
    "llava": LlavaChat,
    "llava_next": LlavaChat,
    "llava_onevision": LlavaChat,
    "blip": BlipHybrid,
    "blip-2": Blip2Chat,
    "Blip2ForImageTextRetrieval": Blip2Retrieval,
    "instructblip": InstructBlipChat,
    "imagebind": Binding,
    "sam": Segmenter,
    "flamingo": FlamingoChat,
    "idefics": FlamingoChat,
    "clip_vision_model": ImageTower,
    "siglip_vision_model": ImageTower,
    "vit": ImageTower,
    "dinov2": ImageTower,
    "clip_text_model": TextTower,
    "siglip_text_model": TextTower,
    "bert": TextTower,
    "gpt2": LanguageChat,
    "opt": LanguageChat,
    "mpt": LanguageChat,
    "gpt_neox": LanguageChat,
    "llama": LanguageChat,
    "mistral": LanguageChat,
    "qwen2": LanguageChat,
    "qwen3": LanguageChat,
}


def family_of(config: Config) -> type[Family[Any]]:
    """The family that a published configuration is read by; raises InputError if there is none."""
    for kind in (*(config.get("architectures") or ()), config.get("model_type")):
        if kind in FAMILIES:
            return FAMILIES[kind]
    raise InputError(f"panmodal does not read model_type {kind!r}{suggest(str(kind), FAMILIES)}")


def load(
    name: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
    adapter: str | os.PathLike[str] | None = None,
) -> Any:
    """Loads a model: built-in (`tiny/…`), a local folder, or `owner/name[@revision]` on the hub.

    What comes back is a family object: `.model` (tensors in, tensors out), `.processor`, and verbs.
    `dtype` is by default float32 on a CPU and the checkpoint's own elsewhere. Weights are read from
    safetensors; `allow_pickle` reads a pickle of plain tensors where there is nothing else. `adapter` is a folder of
    adapters in PEFT's format to put on; where `name` is such a folder, the model is that which it names.
    Raises CheckpointError, naming what was found and what was expected.
    """
    folder = locate(name, allow_pickle)
    if adapter is None and (folder / ADAPTER).exists() and not (folder / "config.json").exists():
        name, adapter = base_of(folder), folder
        folder = locate(name, allow_pickle)
    config = read_config(folder)
    try:
        family = family_of(config)
    except InputError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    if dtype is None:
        own = getattr(torch, str(config.get("dtype", config.get("torch_dtype", "float32"))), torch.float32)
        dtype = torch.float32 if device == "cpu" else own
    model = family.read(folder, os.fspath(name), dtype, allow_pickle)
    if adapter is not None:
        if not isinstance(model, Chat):
            raise InputError(f"adapters are for language models, and {model.name} is {family.__name__}")
        model.read_adapter(locate(adapter), allow_pickle)
    return model.to(device)


__all__ = [
    "FAMILIES",
    "Binding",
    "Blip2Chat",
    "Blip2Retrieval",
    "BlipHybrid",
    "Chat",
    "Contrastive",
    "Family",
    "FlamingoChat",
    "ImageTower",
    "InstructBlipChat",
    "LanguageChat",
    "LlavaChat",
    "Segmenter",
    "TextTower",
    "bootstrap",
    "compose",
    "family_of",
    "flamingo",
    "load",
    "minigpt4",
]
