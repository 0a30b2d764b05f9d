"""The families: each file shows in a page how pieces make a model, and what it can do for a person."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from panmodal.checkpoints.adapters import CONFIG as ADAPTER
from panmodal.checkpoints.adapters import base_of
from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.language import find_language
from panmodal.checkpoints.names import settle
from panmodal.checkpoints.parts import Config
from panmodal.checkpoints.store import Checkpoint, read_config, read_sidecars
from panmodal.connectors import CONNECTORS, Spec, kind_of, options_of
from panmodal.errors import CheckpointError, InputError, suggest
from panmodal.families.base import Family
from panmodal.families.blip import BlipHybrid
from panmodal.families.blip2 import Blip2Chat, InstructBlipChat, bootstrap, minigpt4
from panmodal.families.blip2_retrieval import Blip2Retrieval
from panmodal.families.chat import Chat, Conversational
from panmodal.families.clip import Contrastive
from panmodal.families.flamingo import FlamingoChat, flamingo, llama_adapter
from panmodal.families.imagebind import Binding
from panmodal.families.language import LanguageChat
from panmodal.families.llava import LlavaChat, llava
from panmodal.families.remote import PREFIX, Pace, Remote
from panmodal.families.sam import Segmenter, Segmenter2
from panmodal.families.senses import SensesChat, senses
from panmodal.families.towers import ImageTower, TextTower
from panmodal.foreign import knows

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
    "sam2": Segmenter2,
    "sam2_video": Segmenter2,
    "senses": SensesChat,
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
    if knows(str(kind)):
        return LanguageChat
    raise InputError(f"panmodal does not read model_type {kind!r}{suggest(str(kind), FAMILIES)}")


def load(
    name: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    allow_pickle: bool = False,
    adapter: str | os.PathLike[str] | None = None,
    base_url: str | None = None,
) -> Any:
    """Loads a model: built-in (`tiny/…`), a local folder, `owner/name[@revision]` on the hub, or `openai:NAME`, a
    `Remote` behind the OpenAI chat protocol at `base_url`.

    What comes back is a family object: `.model` (tensors in, tensors out), `.processor`, and verbs.
    `dtype` is by default float32 on a CPU and the checkpoint's own elsewhere. Weights are read from
    safetensors; `allow_pickle` reads a pickle of plain tensors where there is nothing else. `adapter` is a folder of
    adapters in PEFT's format to put on; where `name` is such a folder, the model is that which it names.
    Raises CheckpointError, naming what was found and what was expected.
    """
    if (text := os.fspath(name)).startswith(PREFIX):
        if (device, dtype, allow_pickle, adapter) != ("cpu", None, False, None):
            raise InputError(f"{text} runs where its server is; leave out device, dtype, allow_pickle and adapter")
        return Remote(text.removeprefix(PREFIX), base_url)
    if base_url is not None:
        raise InputError(f"a base_url is for models behind a server, as {PREFIX}{text}")
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


def outline(name: str | os.PathLike[str]) -> Any:
    """A model without its weights, for what its `.processor` makes of data."""
    folder = locate(name)
    config = read_config(folder)
    kind = family_of(config)
    with torch.device("meta"):
        model, names = kind.build(config)
    return kind(model, Checkpoint(config, names, read_sidecars(folder)), os.fspath(name))


Part = str | os.PathLike[str] | Family[Any]


def compose(
    vision: Part | None = None,
    connector: Spec | Mapping[str, Spec] = "mlp",
    language: Part | None = None,
    layer: int = -2,
    *,
    audio: Part | None = None,
    frames: int = 0,
) -> Chat[Any]:
    """A new model from encoders and a language model, or models that have one, each by name.

    `vision` has the encoder of pictures, and with `frames` of so many frames of a video, from its first to its last;
    `audio` has that of sounds (ImageBind's).

    `connector` is a kind, or a table of one and its options, such as `{"kind": "resampler", "latents": 32}`; for
    encoders that differ in theirs, a table of these by `vision` and `audio`. It makes of an encoder's features vectors
    that stand among the words (see `CONNECTORS`); or the language model looks at pictures' features through "gated"
    cross-attention (`flamingo`) or the prompts of an "adapter" (`llama_adapter`).

    The weights of all are taken over, not copied; the connectors are untrained. Among words stand the features after
    the image encoder's layer `layer`: -1 is its last, -2 the one before, as in LLaVA; and after the last of others.
    """
    given = {kind: part for kind, part in (("image", vision), ("audio", audio)) if part is not None}
    if language is None or not given or (frames and vision is None):
        raise InputError("a composed model needs a language model, and vision or audio; frames need vision")
    crossed: dict[str, Callable[..., Chat[Any]]] = {"gated": flamingo, "adapter": llama_adapter}
    specs = _specs(connector, given)
    for spec in specs.values():  # told before anything is loaded
        kinds: dict[str, Any] = {**CONNECTORS, **(crossed if audio is None and not frames else {})}
        if (kind := kind_of(spec)) not in kinds:
            raise InputError(f"unknown connector {kind!r}{suggest(kind, kinds)}")
        options = options_of(spec, kinds[kind])
    parts = {kind: part if isinstance(part, Family) else load(part) for kind, part in given.items()}
    spoken = _language_of(language if isinstance(language, Family) else load(language))
    if audio is not None or frames or isinstance(parts["image"], Binding):
        return senses(parts, specs, spoken, layer, frames)
    if kind in crossed:
        return crossed[kind](parts["image"], spoken, **options)
    return llava(parts["image"], specs["image"], spoken, layer)


def _specs(connector: Spec | Mapping[str, Any], kinds: Collection[str]) -> dict[str, Spec]:
    """The connector of each kind of media"""
    if isinstance(connector, str) or "kind" in connector:
        return dict.fromkeys(kinds, connector)
    found: dict[str, Spec] = {{"vision": "image"}.get(name, name): spec for name, spec in connector.items()}
    if found.keys() != set(kinds):
        raise InputError(
            f"connector names {', '.join(connector)}: it is a kind, a table of one and its options, or one of these "
            "for each encoder, by vision and audio"
        )
    return found


def _language_of(family: Family[Any]) -> LanguageChat:
    if isinstance(family, LanguageChat):
        return family
    if not isinstance(family, LlavaChat | Blip2Chat):
        raise InputError(f"{family!r} is no language model, and has none among words to compose with")
    config = {"model_type": "llama" if isinstance(family, LlavaChat) else "opt", **family.config["text_config"]}
    names = settle(find_language(config).table(config))
    return LanguageChat(family.language, Checkpoint(config, names, family.checkpoint.files), family.name)


__all__ = [
    "FAMILIES",
    "Binding",
    "Blip2Chat",
    "Blip2Retrieval",
    "BlipHybrid",
    "Chat",
    "Contrastive",
    "Conversational",
    "Family",
    "FlamingoChat",
    "ImageTower",
    "InstructBlipChat",
    "LanguageChat",
    "LlavaChat",
    "Pace",
    "Remote",
    "Segmenter",
    "SensesChat",
    "TextTower",
    "bootstrap",
    "compose",
    "family_of",
    "flamingo",
    "llama_adapter",
    "llava",
    "load",
    "minigpt4",
    "outline",
    "senses",
]
