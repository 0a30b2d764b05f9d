"""Text encoders: BERT and the text towers of CLIP and SigLIP."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from panmodal.embeddings import TokenEmbedding
from panmodal.transformer import Transformer, TransformerConfig


class TextEncoder(nn.Module):
    """Words through a transformer.

    `pool_at` says what stands for the text: the "mean" of its tokens (BERT), the "last" one of a
    fixed length (SigLIP), or the "end" token (CLIP): the first `end_id`, or where that is None the
    highest id. `head` is applied to it.
    """

    def __init__(
        self,
        embed: TokenEmbedding,
        config: TransformerConfig,
        pool_at: Literal["mean", "last", "end"],
        head: nn.Module | None = None,
        end_id: int | None = None,
    ) -> None:
        super().__init__()
        self.embed, self.body = embed, Transformer(config)
        self.pool_at, self.end_id = pool_at, end_id
        self.head = head or nn.Identity()

    @property
    def dim(self) -> int:
        return self.body.config.dim

    def forward(self, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """ids [B, T] -> tokens [B, T, D]. `pad` [B, T] is True where a token is real."""
        out: Tensor = self.body(self.embed(ids, pad), pad)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> [..., vocab], by the word embedding itself"""
        return hidden @ self.embed.vectors.weight.T

    def pooled(self, ids: Tensor, pad: Tensor | None = None) -> Tensor:
        """ids [B, T] -> [B, D]"""
        tokens: Tensor = self(ids, pad)
        if self.pool_at == "mean":
            real = torch.ones_like(ids) if pad is None else pad
            chosen = (tokens * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True)
        elif self.pool_at == "end":
            where = (ids if self.end_id is None else (ids == self.end_id).int()).argmax(dim=1)
            chosen = tokens[torch.arange(len(ids)), where]
        else:
            chosen = tokens[:, -1]
        out: Tensor = self.head(chosen)
        return out
