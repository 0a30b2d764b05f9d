"""Frozen weights in 4 or 8 bits, through which gradients go on to what comes before (QLoRA, Dettmers et al., 2023)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.errors import InputError

Bits = Literal["nf4", "int8"]
BLOCK = 64  # numbers that share a scale, in nf4


def quantise(weight: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """A weight [rows, columns] -> its codes and float32 scales: "int8", whole numbers with a scale a row; "nf4", two
    codes a byte with a scale a block, by bitsandbytes. Raises InputError if that is not installed."""
    weight = weight.detach().float()
    if bits == "int8":
        scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        return (weight / scales).round().to(torch.int8), scales
    codes, state = _bitsandbytes().quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
    return codes, state.absmax


def dequantise(codes: Tensor, scales: Tensor, shape: tuple[int, int], bits: Bits) -> Tensor:
    """-> the weight that they stand for, float32 [rows, columns]"""
    if bits == "int8":
        return codes * scales
    functional = _bitsandbytes()
    state = functional.QuantState(scales, torch.Size(shape), blocksize=BLOCK, quant_type="nf4", dtype=torch.float32)
    found: Tensor = functional.dequantize_4bit(codes, state)
    return found


class FrozenProduct(torch.autograd.Function):
    """x [..., columns] -> x W^T. W is made anew in either direction, so that no copy of it is kept between the two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        ctx.given = given
        return F.linear(x, dequantise(*given).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return gradient @ dequantise(*ctx.given).to(gradient.dtype), *(None for _ in ctx.given)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes.functional
    except ImportError:
        raise InputError("a base in nf4 needs the extra: pip install 'panmodal[quantized]'; int8 needs none") from None
    return bitsandbytes.functional
