"""Vision transformers: ViT, DINOv2 and the image towers of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.embeddings import PatchEmbedding
from panmodal.transformer import MLP, Attention, Block, MakeBlock, Transformer, TransformerConfig


class ImageEncoder(nn.Module):
    """Patches through a transformer; `pool` makes one vector of the tokens."""

    def __init__(
        self,
        embed: PatchEmbedding,
        config: TransformerConfig,
        pool: nn.Module | None = None,
        block: MakeBlock = Block,
    ) -> None:
        super().__init__()
        self.embed, self.body = embed, Transformer(config, block)
        self.pool = pool or nn.Identity()

    @property
    def dim(self) -> int:
        return self.body.config.dim

    @property
    def image_size(self) -> int:
        """The side, in pixels, of the square pictures that it was made for."""
        return self.embed.grid * self.embed.project.kernel_size[0]

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> tokens [B, T, D], the class token, if any, first"""
        out: Tensor = self.body(self.embed(images))
        return out

    def first(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> the first token alone, [B, 1, D]; the last block makes no other"""
        *before, last = self.body.blocks
        x = self.embed(images)
        for block in before:
            x = block(x)
        out: Tensor = self.body.norm(last.first(x))  # type: ignore[operator]
        return out

    def pooled(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> [B, D]"""
        out: Tensor = self.pool(self.first(images) if isinstance(self.pool, FirstToken) else self(images))
        return out


def features_only(encoder: ImageEncoder) -> ImageEncoder:
    """An encoder whose last norm and pooling are not used."""
    encoder.body.norm, encoder.pool = nn.Identity(), nn.Identity()
    return encoder


class FirstToken(nn.Module):
    """The class token, in CLIP through a norm of its own."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.norm(tokens[:, 0])
        return out


class NormedTokens(ImageEncoder):
    """CLIP's, but all tokens go through the norm that CLIP has for the class token alone: without it they are as
    loud as the last layer leaves them, and drown what looks at them."""

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> tokens [B, T, D], the class token first"""
        out: Tensor = self.pool.norm(super().forward(images))  # type: ignore[operator]
        return out

    def first(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> [B, 1, D]"""
        out: Tensor = self.pool.norm(super().first(images))  # type: ignore[operator]
        return out


class AttentionPool(nn.Module):
    """SigLIP's head: one learned query looks at all tokens (Zhai et al., 2022, "MAP")."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(config.dim))
        self.attn = Attention(config)
        self.norm, self.mlp = config.make_norm(), MLP(config)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.attn(self.query.expand(len(tokens), 1, -1), Source(tokens))
        out: Tensor = x + self.mlp(self.norm(x))
        return out[:, 0]


class ScaledBlock(Block):
    """DINOv2's block: each branch is scaled, channel by channel, before it joins (LayerScale)."""

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.attn_scale = nn.Parameter(torch.ones(config.dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.dim))

    def residual(self, x: Tensor, norm: nn.Module, layer: Callable[[Tensor], Tensor]) -> Tensor:
        scale = self.attn_scale if norm is self.attn_norm else self.mlp_scale
        out: Tensor = x + scale * layer(norm(x))
        return out
