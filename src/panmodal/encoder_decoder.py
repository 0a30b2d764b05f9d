"""A language model in two parts, as T5 is: an encoder reads the prompt, other modalities' vectors among its words, and
a decoder that looks at what it found says the answer (Raffel et al., 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from panmodal.cache import Source
from panmodal.embeddings import TokenEmbedding
from panmodal.language import LanguageModel
from panmodal.transformer import Attention, Block, CrossBlock, MakeBlock, Transformer, TransformerConfig
from panmodal.visibility import Mask, away, masked


class EncoderDecoder(LanguageModel):
    """Its body is the decoder; `start` is the token that every answer begins with. `scaled` makes logits of hidden
    states divided by the root of their width, as the first T5 does."""

    reads_whole = True

    def __init__(
        self,
        embed: TokenEmbedding,
        encoder: TransformerConfig,
        decoder: TransformerConfig,
        distances: Distances,
        context: int,
        tied: bool,
        scaled: bool,
        start: int,
    ) -> None:
        super().__init__(embed, decoder, context, tied)
        self.encoder = DistanceTransformer(encoder, EncoderBlock, distances)
        self.body = DistanceTransformer(decoder, DecoderBlock, distances)
        self.scale, self.start = decoder.dim**-0.5 if scaled else 1.0, start

    def source(self, x: Tensor, pad: Tensor | None = None) -> Source:
        """A prompt's vectors [B, T, D], `pad` [B, T] True where one is real -> what the decoder looks at"""
        return Source(self.encoder(x, pad), None if pad is None else pad[:, None, None])

    def begin(
        self, ids: Tensor, x: Tensor, pad: Tensor | None = None, source: Source | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None, Source | None]:
        start = ids.new_full((len(x), 1), self.start)
        return start[: len(ids)], self.embed.words(start), None, self.source(x, pad)

    def logits(self, hidden: Tensor) -> Tensor:
        return super().logits(hidden * self.scale)


@dataclass(frozen=True)
class Distances:
    """Into how many classes distances between tokens fall, and from which distance on all are of the last one"""

    count: int
    most: int

    def classes(self, away: Tensor, causal: bool) -> Tensor:
        """How far after a token others stand, of any shape -> the class of each: half of them for single steps, the
        others for distances in even ratios; where tokens look ahead, too, half of all are for those."""
        count = self.count if causal else self.count // 2
        far = (-away).clamp(min=0) if causal else away.abs()
        single = count // 2
        ratio = torch.log(far.clamp(min=1).float() / single) / math.log(self.most / single)
        found = torch.where(far < single, far, (single + (ratio * (count - single)).long()).clamp(max=count - 1))
        return found if causal else found + count * (away > 0)


class DistanceTransformer(Transformer):
    """Each class of distances adds something to the scores of each head, the same in every block."""

    def __init__(self, config: TransformerConfig, block: MakeBlock, distances: Distances) -> None:
        super().__init__(config, block)
        self.distances, self.bias = distances, nn.Embedding(distances.count, config.heads)

    def mask(self, tokens: int, past: int, pad: Tensor | None, at: Tensor) -> Mask:
        classes = self.distances.classes(away(at, tokens), self.config.causal)
        return masked(self.bias(classes).permute(0, 3, 1, 2).float(), super().mask(tokens, past, pad, at))


class UnscaledAttention(Attention):
    """Scores are not divided by the root of the heads' width."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        return super().attend(q * math.sqrt(self.head_dim), k, v, mask)


class EncoderBlock(Block):
    attention = UnscaledAttention


class DecoderBlock(CrossBlock):
    attention = UnscaledAttention
