"""Quicker answers on a CPU: copies of weights in the forms that it multiplies fastest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 4  # rows up to which a product's time is the reading of its weight
MANY = 512  # rows from which the plain weight is as quick as a packed one
_multiplies = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # not in every build
NATIVE = torch.backends.mkldnn.is_available() and _multiplies()  # type: ignore[no-untyped-call]


class QuickLinear(nn.Linear):
    """A float32 linear map that also keeps copies of its weight, which it takes on a CPU while nothing is learned.

    Where the CPU multiplies bfloat16 (AVX-512, AMX), one in bfloat16, packed in blocks by oneDNN; its results differ
    from the float32 ones by about 4e-3 of the row's largest. Elsewhere one in float16 for up to FEW rows, which are
    brought to a largest value of one before they are rounded, so that none overflows (about 1e-3), and one packed in
    float32, where torch has oneDNN, for up to MANY. Sums are float32. The copies follow the weight when that changes,
    are not saved, and take half of its memory, or 1.5 times.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._copied: tuple[tuple[Tensor, int], Tensor, Tensor | None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // self.in_features
        plain = x.dtype != torch.float32 or x.device.type != "cpu" or torch.is_grad_enabled()
        if plain or (rows > MANY and not NATIVE):
            return super().forward(x)
        short, packed = self._copies()
        if NATIVE:
            return self._biased(_product(x.bfloat16(), short).float())
        if rows <= FEW:
            largest = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
            return self._biased(F.linear((x / largest).half(), short).float() * largest)
        return super().forward(x) if packed is None else self._biased(_product(x, packed))

    def _biased(self, out: Tensor) -> Tensor:
        return out if self.bias is None else out + self.bias

    def _copies(self) -> tuple[Tensor, Tensor | None]:
        weight, version = self.weight.detach(), self.weight._version
        if self._copied is None or self._copied[0][0] is not self.weight or self._copied[0][1] != version:
            if NATIVE:
                self._copied = (self.weight, version), _packed(weight.bfloat16()), None
            else:
                packed = _packed(weight) if torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]
                self._copied = (self.weight, version), weight.half(), packed
        return self._copied[1:]


def _packed(weight: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, MANY)
    return out


def _product(x: Tensor, packed: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return out


def quicken(module: nn.Module) -> None:
    """Replaces every plain linear map within by a QuickLinear over the same parameters."""
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, QuickLinear(child))
        else:
            quicken(child)
