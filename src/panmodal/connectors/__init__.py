"""Connectors: from an encoder's features to vectors that a language model reads among its words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from panmodal.connectors.projectors import LinearConnector, MLPConnector, PixelShuffle
from panmodal.connectors.qformer import QFormer
from panmodal.connectors.reducers import ConvolutionalAbstractor, QFormerConnector, ResamplerConnector, TokenMerging
from panmodal.connectors.tiles import Tiles
from panmodal.errors import InputError, suggest

Spec = str | Mapping[str, Any]  # a kind, or a table of one and its options: {"kind": "resampler", "latents": 32}

# Each is made of the features' width, the language model's, and options; `tokens` says how many vectors come out.
CONNECTORS: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLPConnector,
    "linear": LinearConnector,
    "pixel_shuffle": PixelShuffle,
    "token_merging": TokenMerging,
    "abstractor": ConvolutionalAbstractor,
    "qformer": QFormerConnector,
    "resampler": ResamplerConnector,
}


def make_connector(spec: Spec, source: int, dim: int) -> nn.Module:
    """Raises InputError for an unknown kind or option, with the nearest that there is."""
    kind = kind_of(spec)
    if kind not in CONNECTORS:
        raise InputError(f"unknown connector {kind!r}{suggest(kind, CONNECTORS)}")
    return CONNECTORS[kind](source, dim, **options_of(spec, CONNECTORS[kind]))


def kind_of(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec.get("kind"))


def options_of(spec: Spec, make: Callable[..., Any]) -> dict[str, Any]:
    """The options in a table, checked by the parameters of what they are for that have a default."""
    options = {} if isinstance(spec, str) else {k: v for k, v in spec.items() if k != "kind"}
    known = [name for name, p in inspect.signature(make).parameters.items() if p.default is not p.empty]
    for option in options:
        if option not in known:
            raise InputError(f"the connector {kind_of(spec)} has no option {option!r}{suggest(option, known)}")
    return options


__all__ = [
    "CONNECTORS",
    "LinearConnector",
    "MLPConnector",
    "PixelShuffle",
    "QFormer",
    "Spec",
    "Tiles",
    "kind_of",
    "make_connector",
    "options_of",
]
