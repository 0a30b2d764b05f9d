"""A causal language model, and the splice that puts other modalities' vectors among its words."""

from __future__ import annotations

from torch import Tensor, nn

from panmodal.cache import Cache, Source
from panmodal.embeddings import TokenEmbedding
from panmodal.errors import InputError
from panmodal.transformer import ACTIVATIONS, Block, MakeBlock, Transformer, TransformerConfig


class LanguageModel(nn.Module):
    """Words in, logits out. `context` is the longest sequence it was made for, in tokens.

    `bert_head` puts BERT's prediction head at the end in place of a linear map.
    """

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

    def make_cache(self, batch: int, size: int) -> Cache:
        return Cache(self.body.config, batch, size, like=self.embed.vectors.weight)


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
    """Puts `vectors` [N, P, D] into x [B, T, D] where `slots` [B, T] is True, in reading order.

    Raises InputError, with both numbers, unless there is exactly one place for every vector.
    """
    places, found = int(slots.sum()), vectors.shape[0] * vectors.shape[1]
    if places != found:
        raise InputError(
            f"the text has {places} places for media vectors and {len(vectors)} media of {vectors.shape[1]} "
            f"vectors each fill {found}; let the processor build the batch"
        )
    return x.masked_scatter(slots[..., None], vectors.to(x.dtype))
