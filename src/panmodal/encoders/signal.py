"""ImageBind's towers (Girdhar et al., 2023): pictures and short clips, sounds, depth, heat and motion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.embeddings import SignalEmbedding
from panmodal.transformer import Attention, Block, Transformer, TransformerConfig


class SignalEncoder(nn.Module):
    """Patches of a signal through a transformer; the class token, projected, stands for all.

    `biased` towers (all but the picture's) have a learned key and value beside those of the tokens.
    """

    def __init__(self, embed: SignalEmbedding, config: TransformerConfig, out_dim: int, biased: bool) -> None:
        super().__init__()
        self.embed, self.body = embed, Transformer(config, BiasedBlock if biased else Block)
        self.head = nn.Linear(config.dim, out_dim, bias=False)

    def forward(self, signals: Tensor) -> Tensor:
        """signals [B, ...] -> tokens [B, T, D], the class token first"""
        out: Tensor = self.body(self.embed(signals))
        return out

    def pooled(self, signals: Tensor) -> Tensor:
        """signals [B, ...] -> [B, out_dim]"""
        out: Tensor = self.head(self(signals)[:, 0])
        return out


class BiasedAttention(Attention):
    """One more key and value than there are tokens, the same for every input (`bias_k`, `bias_v`)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.bias_k, self.bias_v = nn.Parameter(torch.zeros(config.dim)), nn.Parameter(torch.zeros(config.dim))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] -> [B, H, S + 1, E] each"""
        k, v = super().keys_values(x)
        return self._with(k, self.bias_k), self._with(v, self.bias_v)

    def _with(self, made: Tensor, bias: Tensor) -> Tensor:
        one = bias.view(1, -1, 1, self.head_dim).expand(len(made), -1, -1, -1)  # [B, H, 1, E]
        return torch.cat([made, one], dim=2)


class BiasedBlock(Block):
    attention = BiasedAttention


class Tubelets(nn.Conv3d):
    """Patches over a few frames; a still picture is taken for frames that are alike."""

    def __init__(self, dim: int, frames: int, patch: int) -> None:
        super().__init__(3, dim, (frames, patch, patch), (frames, patch, patch), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, 3, H, W] or [B, 3, frames, H, W] -> [B, D, rows, columns]"""
        if x.ndim == 4:
            return F.conv2d(x, self.weight.sum(dim=2), stride=self.stride[1:])
        return super().forward(x).squeeze(2)


class MotionPatches(nn.Linear):
    """Stretches of all channels of an inertial measurement unit."""

    def __init__(self, dim: int, channels: int, length: int) -> None:
        super().__init__(channels * length, dim, bias=False)
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """x [B, channels, samples] -> [B, D, samples / length]"""
        stretches = x.unfold(-1, self.length, self.length).transpose(1, 2).flatten(2)  # [B, N, channels * length]
        return super().forward(stretches).transpose(1, 2)
