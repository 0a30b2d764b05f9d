"""The perceiver resampler: however many tokens a picture has, a few learned latents stand for it
(Flamingo, Alayrac et al., 2022, figure 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from panmodal.cache import Slot, Source
from panmodal.embeddings import Angles
from panmodal.transformer import Block, Transformer, TransformerConfig
from panmodal.visibility import Mask


def unbiased(dim: int, depth: int, heads: int, head_dim: int) -> TransformerConfig:
    """Blocks of OpenFlamingo's new parts"""
    return TransformerConfig(dim, depth, heads, head_dim=head_dim, norm_eps=1e-5, qkv_bias=False, bias=False)


class ResamplerBlock(Block):
    """Latents look at the source's tokens and at themselves at once, each normalised on its own."""

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.source_norm = config.make_norm()

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        assert source is not None
        latents = self.attn_norm(x)
        x = x + self.attn(latents, Source(torch.cat([self.source_norm(source.vectors), latents], dim=1)))
        return self.residual(x, self.mlp_norm, self.mlp)


class Resampler(nn.Module):
    """`config` is that of the blocks, as wide as the features; `latents` is how many vectors come out."""

    def __init__(self, config: TransformerConfig, latents: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(latents, config.dim))
        self.body = Transformer(config, ResamplerBlock)

    def forward(self, features: Tensor) -> Tensor:
        """[N, P, D] -> [N, latents, D]"""
        out: Tensor = self.body(self.latents.expand(len(features), -1, -1), source=Source(features))
        return out
