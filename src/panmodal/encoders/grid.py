"""SAM's image encoder: a vision transformer that keeps its patches on their grid (Kirillov et al., 2023; Li et al.,
2022, "ViTDet").

Shape legend, besides that of `transformer`:
    R rows   C columns of the grid of patches   W side of a window, in patches
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panmodal.cache import Slot, Source
from panmodal.embeddings import Angles, PatchEmbedding
from panmodal.transformer import Attention, Block, Mask, Transformer, TransformerConfig


class GridEncoder(nn.Module):
    """Most layers attend within windows, those in `global_layers` over the whole grid; a neck of convolutions
    makes features of `out_dim`."""

    def __init__(
        self,
        embed: GridEmbedding,
        config: TransformerConfig,
        window: int,
        global_layers: Collection[int],
        out_dim: int,
    ) -> None:
        super().__init__()

        def block(config: TransformerConfig, layer: int) -> GridBlock:
            return GridBlock(config, layer, embed.grid if layer in global_layers else window)

        self.embed, self.body, self.neck = embed, Transformer(config, block), Neck(config.dim, out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> features [B, R, C, out_dim]"""
        out: Tensor = self.neck(self.body(self.embed(images)))
        return out


class GridEmbedding(PatchEmbedding):
    """Patches that stay on their grid."""

    def __init__(self, dim: int, image_size: int, patch: int, channels: int = 3) -> None:
        super().__init__(dim, image_size, patch, channels, class_token=False)
        self.positions = nn.Parameter(torch.zeros(self.grid, self.grid, dim))

    def forward(self, images: Tensor) -> Tensor:
        """images [B, channels, height, width] -> [B, R, C, D]"""
        out: Tensor = self.project(images).permute(0, 2, 3, 1) + self.positions
        return out


class GridAttention(Attention):
    """Attention over a square of W x W tokens; a query's product with a learned vector for each distance in rows,
    and with one for each in columns, adds to its scores (decomposed relative positions, Li et al., 2021, "MViTv2")."""

    def __init__(self, config: TransformerConfig, window: int) -> None:
        super().__init__(config)
        self.window = window
        self.rows = nn.Parameter(torch.zeros(2 * window - 1, self.head_dim))
        self.cols = nn.Parameter(torch.zeros(2 * window - 1, self.head_dim))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        at = torch.arange(self.window, device=q.device)
        apart = at[:, None] - at + self.window - 1  # [W, W], queries by keys
        placed = q.view(*q.shape[:2], self.window, self.window, -1)  # [B, H, W, W, E]
        by_row = torch.einsum("bhrce,rke->bhrck", placed, self.rows[apart])
        by_col = torch.einsum("bhrce,cke->bhrck", placed, self.cols[apart])
        bias = by_row[..., :, None] + by_col[..., None, :]  # [B, H, W, W, W, W]
        return super().attend(q, k, v, bias.flatten(4).flatten(2, 3).float())


class GridBlock(Block):
    """A block whose attention sees a window of the grid at a time."""

    def __init__(self, config: TransformerConfig, layer: int, window: int) -> None:
        super().__init__(config, layer)
        self.attn, self.window = GridAttention(config, window), window

    def forward(
        self,
        x: Tensor,  # [B, R, C, D]
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        x = self.residual(x, self.attn_norm, self.attend_in_windows)
        return self.residual(x, self.mlp_norm, self.mlp)

    def attend_in_windows(self, x: Tensor) -> Tensor:
        """[B, R, C, D] -> [B, R, C, D]. Windows that stick out of the grid are filled with zeros, which are seen."""
        (batch, rows, cols, dim), side = x.shape, self.window
        down, across = -(-rows // side), -(-cols // side)
        padded = F.pad(x, (0, 0, 0, across * side - cols, 0, down * side - rows))
        cut = padded.view(batch, down, side, across, side, dim).transpose(2, 3)  # [B, down, across, W, W, D]
        attended: Tensor = self.attn(cut.reshape(-1, side * side, dim)).view(cut.shape)
        return attended.transpose(2, 3).reshape(padded.shape)[:, :rows, :cols]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, D, R, C]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Neck(nn.Module):
    """From the transformer's width to the features', [B, R, C, D] -> [B, R, C, out_dim]"""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dim = out_dim
        self.narrow, self.narrow_norm = nn.Conv2d(dim, out_dim, 1, bias=False), ChannelNorm(out_dim, eps=1e-6)
        self.mix, self.mix_norm = nn.Conv2d(out_dim, out_dim, 3, padding=1, bias=False), ChannelNorm(out_dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.narrow_norm(self.narrow(x.movedim(-1, 1)))
        out: Tensor = self.mix_norm(self.mix(x))
        return out.movedim(1, -1)
