"""Decoding at half the memory traffic: float16 copies of weights, for the products of a few rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # rows up to which a product's time on a CPU is the reading of its weight


class HalfLinear(nn.Linear):
    """A float32 linear map that also keeps its weight in float16, and takes the copy for few rows.

    Rows are brought to a largest value of one before they are rounded, so that none overflows; sums
    are float32. A result differs from the float32 one by about 1e-3 of the row's largest. The copy
    follows the weight when that changes, and is not saved.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._copied: tuple[int, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or x.numel() > FEW * self.in_features or torch.is_grad_enabled():
            return super().forward(x)
        largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
        out = F.linear((x / largest).half(), self._half()).float() * largest
        return out if self.bias is None else out + self.bias

    def _half(self) -> Tensor:
        version = self.weight._version
        if self._copied is None or self._copied[0] != version or self._copied[1].device != self.weight.device:
            self._copied = version, self.weight.detach().half()
        return self._copied[1]


def halve(module: nn.Module) -> None:
    """Replaces every plain linear map within by a HalfLinear over the same parameters."""
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, HalfLinear(child))
        else:
            halve(child)
