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
from panmodal.transformer import Attention, Block, Transformer, TransformerConfig
from panmodal.visibility import Mask

PIECE = 2**22  # scores at a time, for what is added to them: of all at once it takes a third of a layer's time


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
            return GridBlock(config, layer, embed.grid, embed.grid if layer in global_layers else window)

        self.embed, self.body, self.neck = embed, Transformer(config, block), Neck(config.dim, out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """images [B, 3, height, width] -> features [B, R, C, out_dim]"""
        patches = self.embed(images)
        out: Tensor = self.neck(self.body(patches.flatten(1, 2)).view_as(patches))
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
    """Attention over the grid's tokens within windows of W x W. A query's product with a learned vector for each
    distance in rows, and with one for each in columns, adds to its scores (decomposed relative positions, Li et al.,
    2021, "MViTv2")."""

    def __init__(self, config: TransformerConfig, grid: int, window: int) -> None:
        super().__init__(config)
        self.grid, self.window = grid, window
        self.rows = nn.Parameter(torch.zeros(2 * window - 1, self.head_dim))
        self.cols = nn.Parameter(torch.zeros(2 * window - 1, self.head_dim))

    def forward(
        self,
        x: Tensor,  # [B, R * C, D]
        source: Source | None = None,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
    ) -> Tensor:
        return super().forward(F.pad(x, (0, 0, 0, 1)))  # windows that stick out of the grid see a token of zeros

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """Each [B, H, R * C + 1, E] -> [B, H, R * C, E]"""
        batch, windows = len(q), self.windows(q.device)
        q, k, v = (x.transpose(1, 2)[:, windows].flatten(0, 1).transpose(1, 2) for x in (q, k, v))
        heads = zip(*(torch.split(x, 1, dim=1) for x in (q, k, v)), strict=True)  # [B * windows, 1, W * W, E] each
        attended = torch.cat([self.attend_in_windows(*head) for head in heads], dim=1)
        tokens = attended.transpose(1, 2).reshape(batch, windows.numel(), -1, self.head_dim)
        places = windows.flatten().argsort()[: self.grid**2]
        return tokens[:, places].transpose(1, 2)

    def windows(self, device: torch.device) -> Tensor:
        """The numbers of each window's tokens, [windows, W * W]; R * C where it sticks out of the grid"""
        count = -(-self.grid // self.window)
        beyond = count * self.window - self.grid
        numbers = torch.arange(self.grid**2, device=device).view(self.grid, self.grid)
        padded = F.pad(numbers, (0, beyond, 0, beyond), value=self.grid**2)
        return padded.view(count, self.window, count, self.window).transpose(1, 2).reshape(-1, self.window**2)

    def attend_in_windows(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One head's [N, 1, W * W, E] in each of N windows -> the same"""
        side, attend = self.window, super().attend
        at = torch.arange(side, device=q.device)
        apart = at[:, None] - at + side - 1  # [W, W], queries by keys
        placed = q.view(*q.shape[:2], side, side, -1)
        by_row = placed @ self.rows[apart].mT  # [N, 1, W, W, W]: rows and columns of queries, then rows of keys
        by_col = (placed.transpose(2, 3) @ self.cols[apart].mT).transpose(2, 3)
        rows = max(1, PIECE // (len(q) * side**3))
        attended = []
        for some, down, across in zip(*(torch.split(x, rows, dim=2) for x in (placed, by_row, by_col)), strict=True):
            bias = (down[..., :, None] + across[..., None, :]).flatten(4).flatten(2, 3)
            attended.append(attend(some.flatten(2, 3), k, v, bias.float()))
        return torch.cat(attended, dim=2)


class GridBlock(Block):
    """A block whose attention sees a window of the grid at a time."""

    def __init__(self, config: TransformerConfig, layer: int, grid: int, window: int) -> None:
        super().__init__(config, layer)
        self.attn = GridAttention(config, grid, window)


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
