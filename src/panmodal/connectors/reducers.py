"""Input projectors that leave fewer tokens than the encoder gives: merged, pooled by convolutions, or gathered by
learned queries. Each ends in a map to the language model's width. P is the number of the encoder's patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.connectors.projectors import LinearConnector, MLPConnector
from panmodal.connectors.qformer import QFormer
from panmodal.connectors.resampler import Resampler, unbiased
from panmodal.errors import InputError
from panmodal.transformer import TransformerConfig


class TokenMerging(nn.Module):
    """Merges the tokens that are most alike, two by two, until one in `factor` is left, then an MLP (Bolya et al.,
    2023, in one place in place of every layer). Nothing is learned of what to merge; what is left is in reading order.
    """

    def __init__(self, source: int, dim: int, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.mlp = MLPConnector(source, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, P, source] -> [B, P / factor, D]"""
        left = self.tokens(features.shape[1])
        x, sizes = features, features.new_ones(features.shape[:2])
        while x.shape[1] > left:
            x, sizes = _merge(x, sizes, min(x.shape[1] - left, x.shape[1] // 2))
        out: Tensor = self.mlp(x)
        return out

    def tokens(self, patches: int) -> int:
        return max(1, patches // self.factor)


def _merge(x: Tensor, sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Every other token may go into the one of the rest that it is most like, and the `count` likest do.
    x [B, T, D], of how many tokens each is the mean [B, T] -> the same with T - count"""
    going, staying = x[:, 1::2], x[:, ::2]
    likeness, best = (F.normalize(going, dim=-1) @ F.normalize(staying, dim=-1).mT).max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True)
    merged, kept = order[:, :count], order[:, count:].sort(dim=-1).values
    into = best.gather(1, merged)
    total = staying * sizes[:, ::2, None]
    total = total.scatter_add(1, _wide(into, x), (going * sizes[:, 1::2, None]).gather(1, _wide(merged, x)))
    weight = sizes[:, ::2].scatter_add(1, into, sizes[:, 1::2].gather(1, merged))
    places = torch.cat([2 * torch.arange(staying.shape[1], device=x.device).expand(len(x), -1), 2 * kept + 1], dim=1)
    new = torch.cat([total / weight[..., None], going.gather(1, _wide(kept, x))], dim=1)
    new_sizes = torch.cat([weight, sizes[:, 1::2].gather(1, kept)], dim=1)
    order = places.argsort(dim=1)
    return new.gather(1, _wide(order, x)), new_sizes.gather(1, order)


def _wide(places: Tensor, x: Tensor) -> Tensor:
    return places[..., None].expand(-1, -1, x.shape[-1])


class ConvolutionalAbstractor(nn.Module):
    """Convolutions over the grid of patches, pooled to a grid whose side is 1 / `factor` of it, and convolutions
    again: what is near stays near (C-Abstractor, Cha et al., 2024, with plain depthwise blocks in place of RegNet's).
    """

    def __init__(self, source: int, dim: int, factor: int = 2, depth: int = 3) -> None:
        super().__init__()
        self.factor = factor
        self.before = nn.Sequential(*(ConvolutionBlock(source) for _ in range(depth)))
        self.after = nn.Sequential(*(ConvolutionBlock(source) for _ in range(depth)))
        self.mlp = MLPConnector(source, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, P, source] -> [B, P / factor^2, D]; the P patches are a square grid, its side rounded down."""
        side = _side(features.shape[1])
        # contiguous, for the backward pass of a group norm in torch 2.13 fails where channels come last and are frozen
        x = self.before(features.mT.contiguous().view(len(features), -1, side, side))
        x = self.after(F.adaptive_avg_pool2d(x, max(1, side // self.factor)))
        out: Tensor = self.mlp(x.flatten(2).mT)
        return out

    def tokens(self, patches: int) -> int:
        return max(1, _side(patches) // self.factor) ** 2


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side**2 != patches:
        raise InputError(f"convolutions need a square grid of patches, not {patches}")
    return side


class ConvolutionBlock(nn.Module):
    """A 3 x 3 convolution of each channel by itself and a map across channels, with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, dim)
        self.near, self.across = nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, R, C] -> the same"""
        out: Tensor = x + self.across(F.silu(self.near(self.norm(x))))
        return out


class QFormerConnector(nn.Module):
    """A Q-Former without words, as wide as the features, and a linear map (BLIP-2, Li et al., 2023)."""

    def __init__(self, source: int, dim: int, queries: int = 32, depth: int = 6, heads: int = 8) -> None:
        super().__init__()
        config = TransformerConfig(source, depth, heads, norm_eps=1e-12, pre_norm=False, final_norm=False)
        self.qformer = QFormer(config, queries, source)
        self.project = LinearConnector(source, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, P, source] -> [B, queries, D]"""
        out: Tensor = self.project(self.qformer(Source(features)))
        return out

    def tokens(self, patches: int) -> int:
        return len(self.qformer.queries)


class ResamplerConnector(nn.Module):
    """A perceiver resampler and a linear map (Flamingo, Alayrac et al., 2022)."""

    def __init__(
        self, source: int, dim: int, latents: int = 64, depth: int = 6, heads: int = 8, head_dim: int = 64
    ) -> None:
        super().__init__()
        self.resampler = Resampler(unbiased(source, depth, heads, head_dim), latents)
        self.project = LinearConnector(source, dim)

    def forward(self, features: Tensor) -> Tensor:
        """[B, P, source] -> [B, latents, D]"""
        out: Tensor = self.project(self.resampler(features))
        return out

    def tokens(self, patches: int) -> int:
        return len(self.resampler.latents)
