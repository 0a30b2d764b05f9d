"""What every family object is: a module, its processor, and the checkpoint they came from."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from panmodal.checkpoints.names import Names, settle
from panmodal.checkpoints.parts import Config
from panmodal.checkpoints.store import (
    Checkpoint,
    load_weights,
    open_weights,
    read_config,
    read_sidecars,
    save_checkpoint,
)
from panmodal.data.media import Medium
from panmodal.data.processor import Processor
from panmodal.data.sample import Batch, Image
from panmodal.encoders import ImageEncoder
from panmodal.errors import InputError
from panmodal.transformer import initialise

M = TypeVar("M", bound=nn.Module)
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # of as many bytes
TOGETHER = 8  # media decoded at a time
FILLED = TOGETHER * 3 * 224 * 224  # numbers in the model at a time: enough to fill it, few enough to stay in the cache


class Family(ABC, Generic[M]):
    """`model` takes tensors and gives tensors; `processor` makes its batches; the verbs join them."""

    spare_under: tuple[str, ...] = ()  # see `load_weights`

    def __init__(self, model: M, checkpoint: Checkpoint, name: str = "") -> None:
        self.model, self.checkpoint, self.name = model.eval(), checkpoint, name
        self.processor = self.make_processor()

    @staticmethod
    @abstractmethod
    def build(config: Config) -> tuple[Any, Names]:
        """The module that a published configuration describes, and the names of its tensors."""

    @abstractmethod
    def make_processor(self) -> Processor: ...

    @classmethod
    def read(cls, folder: Path, name: str, dtype: torch.dtype, allow_pickle: bool = False) -> Self:
        """A checkpoint folder -> the family object, on the CPU."""
        config = read_config(folder)
        with torch.device("meta"):
            model, names = cls.build(config)
        with open_weights(folder, allow_pickle) as stored:
            names, spare = load_weights(model, names, stored, dtype, cls.spare_under)
        return cls(model, Checkpoint(config, names, read_sidecars(folder), spare), name)

    @classmethod
    def fresh(cls, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        """An untrained model of a published configuration; `files` are those beside its weights."""
        model, names = cls.build(config)
        initialise(model)
        family = cls(model, Checkpoint(dict(config), settle(names), dict(files)))
        rows = {m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)}
        if "tokenizer.json" in files and family.processor.tokenizer.size > max(rows, default=0):
            raise InputError(
                f"the tokenizer has {family.processor.tokenizer.size} tokens; vocab_size must be as many or more"
            )
        return family

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.model.parameters())
        return f"{type(self).__name__}({self.name or self.config.get('model_type')!r}, {count:,} parameters)"

    @property
    def config(self) -> dict[str, Any]:
        """The published configuration, as in `config.json`."""
        return self.checkpoint.config

    @property
    def takes(self) -> tuple[str, ...]:
        """The kinds of media that it takes."""
        return tuple(self.processor.media)

    def image_tower(self) -> tuple[ImageEncoder, dict[str, Any]]:
        """The image encoder within, and its published configuration, to compose with."""
        raise InputError(f"{self.name or type(self).__name__} has no image encoder to compose with")

    def tower(self, kind: str) -> tuple[nn.Module, dict[str, Any]]:
        """As `image_tower`, for any kind of media"""
        if kind == "image":
            return self.image_tower()
        raise InputError(f"{self.name or type(self).__name__} has no {kind} encoder to compose with")

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        self.model.to(device=device, dtype=dtype)
        return self

    def does(self, verb: str) -> bool:
        """Whether it has a verb, and the parts that the verb needs."""
        return hasattr(self, verb)

    def fingerprint(self) -> str:
        """A digest of the configuration, the preprocessing and the weights, for keys of caches: the same on any device
        and with any number of threads."""
        told = [json.dumps(self.config, sort_keys=True, default=str), str(sorted(self.checkpoint.files.items()))]
        for name, parameter in self.model.named_parameters():
            bits = parameter.detach().contiguous().view(INTEGERS[parameter.element_size()]).long()
            told.append(f"{name} {bits.sum().item()} {(bits * bits).sum().item()}")  # whose order does not matter
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]

    def save(self, folder: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
        """Writes the model in the published layout that it was loaded from: what reads that layout
        reads it, this library among them."""
        save_checkpoint(Path(folder), self.model, self.checkpoint, dtype)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [N, D] at unit length, float32, on the CPU."""
    return nn.functional.normalize(vectors.float(), dim=-1).cpu()


def encode_media(
    family: Family[Any],
    prepare: Callable[[Sequence[Any]], Tensor],
    encoder: Callable[[Tensor], Tensor],
    media: Sequence[Medium],
) -> Tensor:
    """What an encoder makes of media of one kind, [N, …], as many at a time as fill it; the next few are decoded
    meanwhile."""
    groups = [media[i : i + TOGETHER] for i in range(0, len(media), TOGETHER)]
    with ThreadPoolExecutor(1) as ahead, torch.inference_mode():
        numbers = ahead.map(prepare, groups)
        found = [
            encoder(few.to(family.device, family.dtype))
            for some in numbers
            for few in torch.split(some, max(1, FILLED // some[0].numel()))
        ]
    return torch.cat(found) if found else torch.empty(0)


def encode_images(family: Family[Any], encoder: Callable[[Tensor], Tensor], images: Sequence[Image]) -> Tensor:
    """What an encoder makes of pictures, [N, …]"""
    return encode_media(family, family.processor.pictures, encoder, images)


def embed_images(family: Family[Any], pooled: Callable[[Tensor], Tensor], images: Sequence[Image]) -> Tensor:
    """Pictures -> [N, D] at unit length"""
    return encode_images(family, lambda pixels: unit(pooled(pixels)), images)


def embed_texts(
    family: Family[Any], pooled: Callable[[Tensor, Tensor | None], Tensor], texts: Sequence[str], truncate: bool
) -> Tensor:
    """Texts -> [N, D] at unit length; texts of like length go together."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors: list[Tensor] = [torch.empty(0)] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(texts), TOGETHER * 4):
            some = order[start : start + TOGETHER * 4]
            batch = family.processor.texts([texts[i] for i in some], truncate).to(family.device)
            for i, vector in zip(some, unit(pooled(batch.ids, batch.pad)), strict=True):
                vectors[i] = vector
    return torch.stack(vectors) if vectors else torch.empty(0)


def embed_either(
    family: Family[Any],
    images: Callable[[Tensor], Tensor],
    texts: Callable[[Tensor, Tensor | None], Tensor],
    items: Sequence[Image | str],
    truncate: bool,
) -> Tensor:
    """Pictures and texts, in any order -> [N, D] at unit length"""
    seen = iter(embed_images(family, images, [item for item in items if isinstance(item, Image)]))
    read = iter(embed_texts(family, texts, [item for item in items if isinstance(item, str)], truncate))
    return torch.stack([next(seen if isinstance(item, Image) else read) for item in items])


def match_texts(family: Family[Any], judge: Callable[[Batch], Tensor], texts: Sequence[str], rows: int) -> list[float]:
    """How likely each text is to fit, by a judge that makes of some their logits [N, 2] of not fitting and fitting"""
    odds: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(texts), rows):
            batch = family.processor.texts(texts[start : start + rows]).to(family.device)
            odds += judge(batch).float().softmax(-1)[:, 1].tolist()
    return odds


def check_layer(tower: Any, layer: int) -> None:
    """Raises InputError if an encoder of pictures has no such layer, counted from its last, -1."""
    depth = tower.body.config.depth
    if not -depth <= layer < 0:
        raise InputError(f"there is no vision layer {layer}: -1 is the last, {-depth} the first")


def take_weights(encoder: nn.Module, tower: nn.Module) -> None:
    """Gives an encoder the weights of another, not copied, which may have more: later layers, or a pooling."""
    known = encoder.state_dict().keys()
    encoder.load_state_dict({k: v for k, v in tower.state_dict().items() if k in known}, assign=True)
