"""A causal language model, and the splice that puts other modalities' vectors among its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Cache, Slot, Source
from panmodal.data.sample import Batch
from panmodal.embeddings import Angles, TokenEmbedding
from panmodal.errors import InputError
from panmodal.transformer import ACTIVATIONS, Block, MakeBlock, Transformer, TransformerConfig
from panmodal.visibility import Mask


class ParallelBlock(Block):
    """Attention and MLP side by side, each of what comes in (GPT-J; GPT-NeoX)."""

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        out: Tensor = x + self.attn(self.attn_norm(x), mask=mask, rope=rope, slot=slot) + self.mlp(self.mlp_norm(x))
        return out


class LanguageModel(nn.Module):
    """Words in, logits out. `context` is the longest sequence it was made for, in tokens.

    `bert_head` puts BERT's prediction head at the end in place of a linear map.
    """

    reads_whole = False  # whether an encoder reads prompts, so that nothing can be kept of how they begin

    def __init__(
        self,
        embed: TokenEmbedding,
        config: TransformerConfig,
        context: int,
        tied: bool = False,
        block: MakeBlock = Block,
        bert_head: bool = False,
    ) -> None:
        super().__init__()
        self.embed, self.body, self.context = embed, Transformer(config, block), context
        vocab, word_dim = embed.vectors.weight.shape
        self.narrow: nn.Module = nn.Identity()
        if bert_head:
            self.narrow = BertTransform(config)
        elif word_dim != config.dim:
            self.narrow = nn.Linear(config.dim, word_dim, bias=False)
        self.head = nn.Linear(word_dim, vocab, bias=bert_head)
        self.tied = tied
        self.tie()

    def tie(self) -> None:
        """Makes the head share the embedding's weight, if it should; call it after replacing either."""
        if self.tied:
            self.head.weight = self.embed.vectors.weight

    @property
    def dim(self) -> int:
        return self.body.config.dim

    def forward(
        self, ids: Tensor, pad: Tensor | None = None, cache: Cache | None = None, source: Source | None = None
    ) -> Tensor:
        """ids [B, T] -> logits [B, T, vocab]. `pad` [B, S] is True where a token, cached or new, is real;
        `source` is what cross-attention, where the blocks have it, looks at."""
        return self.logits(self.hidden(ids, pad, cache, source))

    def read(self, batch: Batch) -> Tensor:
        """-> hidden states [B, T, D]"""
        return self.hidden(batch.ids, batch.pad)

    def hidden(
        self, ids: Tensor, pad: Tensor | None = None, cache: Cache | None = None, source: Source | None = None
    ) -> Tensor:
        """ids [B, T] -> hidden states [B, T, D]"""
        return self.decode(self.embed.words(ids), pad, cache, source)

    def decode(
        self, x: Tensor, pad: Tensor | None = None, cache: Cache | None = None, source: Source | None = None
    ) -> Tensor:
        """Word vectors, other modalities' among them, [B, T, D] -> hidden states [B, T, D]"""
        past = cache.length if cache is not None else 0
        out: Tensor = self.body(self.embed.place(x, pad, past), pad, cache, source)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.head(self.narrow(hidden))
        return out

    def grown(self, rows: int) -> dict[str, Tensor]:
        """Its weights for a vocabulary of `rows`, the words that are new to it the mean of the others."""
        weights = self.state_dict()
        tables = ("embed.vectors.weight", "head.weight")
        return {name: with_rows(t, rows) if name in tables else t for name, t in weights.items()}

    def grow(self, rows: int) -> None:
        """Makes its vocabulary as large as that of `grown`."""
        weights = self.grown(rows)
        self.embed.vectors.weight, self.embed.vectors.num_embeddings = (
            nn.Parameter(weights["embed.vectors.weight"]),
            rows,
        )
        self.head.weight, self.head.out_features = nn.Parameter(weights["head.weight"]), rows
        self.tie()

    def begin(
        self, ids: Tensor, x: Tensor, pad: Tensor | None = None, source: Source | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Source | None]:
        """A whole prompt as `generate` takes it -> what an answer goes on from: here the prompt"""
        return ids, x, pad, source

    def make_cache(self, batch: int, size: int) -> Cache:
        return Cache(self.body.config, batch, size, like=self.embed.vectors.weight)


def logits_of(model: LanguageModel | Any) -> Callable[[Tensor], Tensor]:
    """What makes logits of a model's hidden states: its own, or those of the language model in it"""
    return (model if isinstance(model, LanguageModel) else model.language).logits


def with_rows(table: Tensor, rows: int) -> Tensor:
    """A table of words cut to so many rows, or grown to them by their mean."""
    mean = table.mean(dim=0, keepdim=True).expand(max(0, rows - len(table)), -1)
    return torch.cat([table[:rows], mean])


class BertTransform(nn.Module):
    """What BERT's prediction head does with hidden states before words are scored, each with a bias."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(config.dim, config.dim), config.make_norm()
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        out: Tensor = self.norm(self.activation(self.dense(hidden)))
        return out


def splice(x: Tensor, slots: Tensor, vectors: Tensor) -> Tensor:
    """Puts `vectors` [..., D] into x [B, T, D] where `slots` [B, T] is True, in reading order.

    Raises InputError, with both numbers, unless there is exactly one place for every vector.
    """
    places, found = int(slots.sum()), vectors[..., 0].numel()
    if places != found:
        raise InputError(
            f"the text has {places} places for media vectors and the media have {found} vectors; "
            "let the processor build the batch"
        )
    return x.masked_scatter(slots[..., None], vectors.to(x.dtype))


class AddedWords(nn.Embedding):
    """Words, and after them some added later, whose vectors are a parameter of their own, so that they can be
    learned while the others stay as they are (IDEFICS)."""

    def __init__(self, words: int, added: int, dim: int) -> None:
        super().__init__(words, dim)
        self.added = nn.Embedding(added, dim)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., D]"""
        new = ids >= self.num_embeddings
        vectors = self.added((ids - self.num_embeddings).clamp(min=0))
        return torch.where(new[..., None], vectors, super().forward(ids.masked_fill(new, 0)))


class AddedHead(nn.Linear):
    """The head of a language model with `AddedWords`."""

    def __init__(self, dim: int, words: int, added: int) -> None:
        super().__init__(dim, words, bias=False)
        self.added = nn.Linear(dim, added, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., words + added]"""
        return torch.cat([super().forward(x), self.added(x)], dim=-1)
