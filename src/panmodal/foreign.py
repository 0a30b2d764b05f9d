"""Language models that the core does not know, by the `transformers` library (the `hf` extra): any of its causal
language models in the place of a `LanguageModel`, alone or composed with an image encoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from panmodal.cache import Cache, Source
from panmodal.errors import CheckpointError
from panmodal.language import LanguageModel
from panmodal.visibility import positions, visible


def knows(kind: str) -> bool:
    """Whether the library is there and has a causal language model of this `model_type`."""
    try:
        from transformers.models.auto import modeling_auto
    except ImportError:
        return False
    return kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


class ForeignLanguage(LanguageModel):
    """`model` is what `AutoModelForCausalLM` makes of a configuration; its parameters keep their names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        nn.Module.__init__(self)
        import transformers as tf

        settings = tf.AutoConfig.for_model(**config)
        with _real_but_weights() if torch.get_default_device().type == "meta" else nullcontext():
            self.model = tf.AutoModelForCausalLM.from_config(settings).float()  # type: ignore[no-untyped-call]
        if settings.is_encoder_decoder:
            raise CheckpointError(f"{config['model_type']} reads with an encoder; panmodal takes decoders")
        self.context = getattr(settings, "max_position_embeddings", None) or 2048
        self.tied = bool(settings.tie_word_embeddings)

    @property
    def embed(self) -> SimpleNamespace:  # type: ignore[override]
        table = self.model.get_input_embeddings()
        return SimpleNamespace(words=table, vectors=table)

    @property
    def dim(self) -> int:
        width: int = self.embed.vectors.weight.shape[1]
        return width

    def tie(self) -> None:
        self.model.tie_weights()

    def grow(self, rows: int) -> None:
        self.model.resize_token_embeddings(rows)  # which begins new words at the mean of the others

    def grown(self, rows: int) -> dict[str, Tensor]:
        self.grow(rows)
        return self.state_dict()

    def decode(
        self, x: Tensor, pad: Tensor | None = None, cache: Cache | None = None, source: Source | None = None
    ) -> Tensor:
        past = cache.length if cache is not None else 0
        mask = pad
        if pad is not None and pad.dtype != torch.bool:
            allowed = visible(pad)[:, None]
            mask = x.new_zeros(allowed.shape).masked_fill(~allowed, torch.finfo(x.dtype).min)
        at = positions(past + x.shape[1], pad, x.device)[:, past:].expand(len(x), -1)
        kept = {"past_key_values": cache.kept, "use_cache": True} if isinstance(cache, ForeignCache) else {}
        out: Tensor = self.model.base_model(
            inputs_embeds=x, attention_mask=mask, position_ids=at, **kept or {"use_cache": False}
        ).last_hidden_state
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        settings, out = self.model.config.get_text_config(), self.model.get_output_embeddings()(hidden)
        out = out * getattr(settings, "logit_scale", 1.0) / getattr(settings, "logits_scaling", 1.0)  # Cohere; Granite
        most = getattr(settings, "final_logit_softcapping", None)  # Gemma
        capped: Tensor = out if most is None else most * torch.tanh(out / most)
        return capped

    def make_cache(self, batch: int, size: int) -> Cache:
        return ForeignCache(size)


@contextmanager
def _real_but_weights() -> Iterator[None]:
    """On the meta device weights alone: what no checkpoint holds, such as rotary frequencies, is made for good."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        register(self, name, parameter)

    with patch.object(nn.Module, "register_parameter", on_meta), torch.device("cpu"):
        yield


class ForeignCache(Cache):
    """The library's cache, which grows by itself."""

    def __init__(self, size: int) -> None:
        import transformers as tf

        self.kept, self.size = tf.DynamicCache(), size

    @property
    def length(self) -> int:  # type: ignore[override]
        return int(self.kept.get_seq_length())

    def select(self, rows: Tensor) -> None:
        self.kept.reorder_cache(rows)  # type: ignore[arg-type]

    def resize(self, size: int, length: int) -> None:
        self.size = max(size, self.size)
        if length < self.length:
            self.kept.crop(length - self.length)  # how many to take away, negative
