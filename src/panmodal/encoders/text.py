"""Text encoders: BERT and the text towers of CLIP, SigLIP and BLIP."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.embeddings import TokenEmbedding
from panmodal.transformer import Block, MakeBlock, Transformer, TransformerConfig


class TextEncoder(nn.Module):
    """Words through a transformer.

    `pool_at` says what stands for the text: the "mean" of its tokens (BERT), the "first" (BLIP), the
    "last" one of a fixed length (SigLIP), or the "end" token (CLIP): the first `end_id`, or where that
    is None the highest id. `head` is applied to it. A `block` with cross-attention may look at a source.
    """

    def __init__(
        self,
        embed: TokenEmbedding,
        config: TransformerConfig,
        pool_at: Literal["mean", "first", "last", "end"],
        head: nn.Module | None = None,
        end_id: int | None = None,
        block: MakeBlock = Block,
    ) -> None:
        super().__init__()
        self.embed, self.body = embed, Transformer(config, block)
        self.pool_at, self.end_id = pool_at, end_id
        self.head = head or nn.Identity()

    @property
    def dim(self) -> int:
        return self.body.config.dim

    def forward(self, ids: Tensor, pad: Tensor | None = None, source: Source | None = None) -> Tensor:
        """ids [B, T] -> tokens [B, T, D]. `pad` [B, T] is True where a token is real."""
        out: Tensor = self.body(self.embed(ids, pad), pad, source=source)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> [..., vocab], by the word embedding itself"""
        return hidden @ self.embed.vectors.weight.T

    def pooled(self, ids: Tensor, pad: Tensor | None = None, source: Source | None = None) -> Tensor:
        """ids [B, T] -> [B, D]"""
        tokens: Tensor = self(ids, pad, source)
        if self.pool_at == "mean":
            real = torch.ones_like(ids) if pad is None else pad
            chosen = (tokens * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        elif self.pool_at == "end":
            where = (ids if self.end_id is None else (ids == self.end_id).int()).argmax(dim=1)
            chosen = tokens[torch.arange(len(ids)), where]
        else:
            chosen = tokens[:, 0 if self.pool_at == "first" else -1]
        out: Tensor = self.head(chosen)
        return out


class Pooler(nn.Module):
    """BERT's: a linear map and a hyperbolic tangent."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(x).tanh()
        return out
