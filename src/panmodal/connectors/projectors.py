"""Input projectors that treat every token alike: linear, MLP, and pixel shuffle before an MLP."""

from __future__ import annotations

import math

from torch import Tensor, nn

from panmodal.errors import InputError
from panmodal.transformer import ACTIVATIONS


class MLPConnector(nn.Module):
    """Two linear maps with an activation between (LLaVA-1.5)."""

    def __init__(self, source: int, dim: int, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(source, dim, bias=bias), nn.Linear(dim, dim, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, source] -> [B, T, D]"""
        out: Tensor = self.down(self.activation(self.up(features)))
        return out

    def tokens(self, patches: int) -> int:
        return patches


class LinearConnector(nn.Module):
    """One linear map (LLaVA, MiniGPT-4)."""

    def __init__(self, source: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(source, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, source] -> [B, T, D]"""
        out: Tensor = self.project(features)
        return out

    def tokens(self, patches: int) -> int:
        return patches


class PixelShuffle(nn.Module):
    """Folds each square of `factor` x `factor` neighbouring tokens into one, wider, then an MLP."""

    def __init__(self, source: int, dim: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.mlp = MLPConnector(source * factor**2, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, source] -> [B, T / factor^2, D]; the T tokens are a square grid."""
        side, f = math.isqrt(features.shape[1]), self.factor
        self.tokens(features.shape[1])
        x = features.view(len(features), side // f, f, side // f, f, -1).transpose(2, 3)  # [B, s/f, s/f, f, f, source]
        out: Tensor = self.mlp(x.flatten(3).flatten(1, 2))
        return out

    def tokens(self, patches: int) -> int:
        side = math.isqrt(patches)
        if side**2 != patches or side % self.factor:
            raise InputError(
                f"pixel shuffle by {self.factor} needs a square grid whose side it divides, not {patches} tokens"
            )
        return patches // self.factor**2
