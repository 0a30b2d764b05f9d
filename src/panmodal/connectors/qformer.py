"""The Q-Former: learned queries that gather from a picture what a language model, or a text, needs to know of it
(BLIP-2, Li et al., 2023). The shape legend is that of `transformer`; Q is the number of queries."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.embeddings import TokenEmbedding
from panmodal.transformer import MLP, Attention, Block, Transformer, TransformerConfig

Sight = Literal["unimodal", "bidirectional", "causal"]


class QueryBlock(Block):
    """Queries and the text after them share the self-attention; the queries alone look at the source, in every
    `every`th block, and each of the two has a feed-forward of its own. Without a source all is text."""

    def __init__(
        self, config: TransformerConfig, layer: int = 0, *, queries: int, source_dim: int, every: int, text: bool
    ) -> None:
        super().__init__(config, layer)
        self.queries = queries
        looks = layer % every == 0
        self.cross = Attention(config, source_dim) if looks else None
        self.cross_norm = config.make_norm() if looks else nn.Identity()
        self.text_mlp = MLP(config) if text else nn.Identity()
        self.text_norm = config.make_norm() if text else nn.Identity()

    def after_attention(self, x: Tensor, source: Source | None) -> Tensor:
        count = 0 if source is None else self.queries
        queries, text = x[:, :count], x[:, count:]
        if source is not None and self.cross is not None:
            queries = self.residual(queries, self.cross_norm, partial(self.cross, source=source))
        if count:
            queries = self.residual(queries, self.mlp_norm, self.mlp)
        if text.shape[1]:
            text = self.residual(text, self.text_norm, self.text_mlp)
        return torch.cat([queries, text], dim=1)


class QFormer(nn.Module):
    """`embed` makes it read texts, too: beside a picture, as a question about it, or alone."""

    def __init__(
        self,
        config: TransformerConfig,
        queries: int,
        source_dim: int,
        every: int = 2,
        embed: TokenEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(queries, config.dim))
        self.embed, self.norm = embed, config.make_norm()
        block = partial(QueryBlock, queries=queries, source_dim=source_dim, every=every, text=embed is not None)
        self.body = Transformer(config, block)

    @property
    def dim(self) -> int:
        return self.body.config.dim

    @property
    def context(self) -> int:
        """The longest text that it reads, in tokens."""
        if self.embed is None or self.embed.positions is None:
            return 0
        longest: int = self.embed.positions.num_embeddings
        return longest

    def forward(
        self,
        source: Source | None,
        ids: Tensor | None = None,
        pad: Tensor | None = None,
        sight: Sight = "bidirectional",
    ) -> Tensor:
        """A picture's vectors, a text's ids [B, T], or both -> hidden states [B, Q + T, D], the queries' first.

        `pad` [B, T] is True where a token is real; `sight` says who sees whom, see `sight_mask`.
        """
        parts = []
        if source is not None:
            parts.append(self.queries.expand(len(source.vectors), -1, -1))
        if ids is not None:
            assert self.embed is not None
            parts.append(self.embed(ids, pad))
        x: Tensor = self.norm(torch.cat(parts, dim=1))
        mask = None
        if ids is not None and (pad is not None or sight != "bidirectional"):
            real = torch.ones_like(ids, dtype=torch.bool) if pad is None else pad
            mask = sight_mask(sight, 0 if source is None else len(self.queries), real)
        for block in self.body.blocks:
            x = block(x, mask, source=source)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states of text [..., D] -> [..., vocab], by the word embedding itself"""
        assert self.embed is not None
        out: Tensor = hidden @ self.embed.vectors.weight.T
        return out


def sight_mask(sight: Sight, queries: int, pad: Tensor) -> Tensor:
    """Where queries and the text after them may look, [B, 1, Q + T, Q + T]; `pad` [B, T] is True where a token is
    real. The three kinds are those of BLIP-2's first stage of pre-training:

    - "unimodal": queries see queries and words see words, to tell pairs of picture and text apart (ITC);
    - "bidirectional": all see all, to judge whether the two match (ITM);
    - "causal": queries see queries, and a word sees them and the words up to itself, to say the text (ITG).
    """
    real = torch.cat([pad.new_ones(len(pad), queries), pad], dim=1)
    total = real.shape[1]
    of_text = torch.arange(total, device=pad.device) >= queries
    if sight == "bidirectional":
        allowed = torch.ones(total, total, dtype=torch.bool, device=pad.device)
    elif sight == "unimodal":
        allowed = of_text[:, None] == of_text
    else:
        upto = torch.ones(total, total, dtype=torch.bool, device=pad.device).tril()
        allowed = torch.where(of_text[:, None], upto, ~of_text)
    itself = torch.eye(total, dtype=torch.bool, device=pad.device)  # else a padded row sees nothing
    return (allowed & real[:, None] | itself)[:, None]
