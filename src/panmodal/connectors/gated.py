"""Gated cross-attention: a language model looks at pictures through layers put between its own, which begin
closed, so that it starts as it was (Flamingo, Alayrac et al., 2022, figure 4); or through prompts, which begin
closed, too (LLaMA-Adapter, Zhang et al., 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from panmodal.cache import Slot, Source
from panmodal.embeddings import Angles
from panmodal.errors import InputError
from panmodal.language import LanguageModel, ParallelBlock
from panmodal.transformer import MLP, Attention, Block, Transformer, TransformerConfig
from panmodal.visibility import Mask, visible


class GatedLayer(nn.Module):
    """Cross-attention, then an MLP, each let in by the tanh of a learned number."""

    def __init__(self, config: TransformerConfig, source_dim: int) -> None:
        super().__init__()
        self.attn, self.attn_norm = Attention(config, source_dim), config.make_norm()
        self.mlp, self.mlp_norm = MLP(config), config.make_norm()
        self.attn_gate, self.mlp_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, source: Source | None) -> Tensor:
        """x [B, T, D] -> [B, T, D]; without a source there is nothing to look at, and the MLP alone acts."""
        if source is not None:
            x = x + self.attn_gate.tanh() * self.attn(self.attn_norm(x), source)
        out: Tensor = x + self.mlp_gate.tanh() * self.mlp(self.mlp_norm(x))
        return out


class GatedBlock(Block):
    """A language model's block, and a gated layer before it."""

    def __init__(self, config: TransformerConfig, layer: int, gate: GatedLayer) -> None:
        super().__init__(config, layer)
        self.gate = gate

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        return super().forward(self.gate(x, source), mask, rope, slot)


class GatedParallelBlock(GatedBlock, ParallelBlock):
    """The same before a `ParallelBlock`."""


class PromptGate(nn.Module):
    """What a block with prompts has more than another: learned prompts, which a picture's vectors of width
    `source_dim`, as many, are added to, and a number that lets them in."""

    def __init__(self, dim: int, source_dim: int, prompts: int) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.zeros(prompts, dim))
        self.project = nn.Linear(source_dim, dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, source: Source | None, rows: int) -> Source:
        """Vectors of one picture or several, [B, S, source_dim] -> prompts [B, S, D]; without, the learned ones"""
        if source is None:
            return Source(self.prompts.expand(rows, -1, -1))
        pictures = source.vectors.shape[1] // len(self.prompts)
        return Source(self.project(source.vectors) + self.prompts.repeat(pictures, 1), source.mask)


class PromptedBlock(Block):
    """A language model's block whose attention, by its own weights, also looks at prompts, beginning at zero
    (LLaMA-Adapter, Zhang et al., 2024, equations 4 to 8, with one gate for all heads)."""

    def __init__(self, config: TransformerConfig, layer: int, gate: PromptGate) -> None:
        super().__init__(config, layer)
        self.gate = gate

    def forward(
        self,
        x: Tensor,
        mask: Mask = None,
        rope: Angles | None = None,
        slot: Slot | None = None,
        source: Source | None = None,
    ) -> Tensor:
        seen = self.attn_norm(x)
        prompted = self.attn(seen, self.gate(source, len(x)))
        x = x + self.attn(seen, mask=mask, rope=rope, slot=slot) + self.gate.gate.tanh() * prompted
        return self.after_attention(x, None)


def add_gates(language: LanguageModel, gates: nn.ModuleList, every: int, first: int) -> None:
    """Puts gated layers before the blocks `first`, `first + every`, … of a language model, or gives prompts to them;
    its blocks are made anew. Raises InputError unless there is a gate for each of these, and for blocks that take none.
    """
    config, kind = language.body.config, language.body.blocks[0]
    plain = ParallelBlock if isinstance(kind, ParallelBlock) else Block
    prompted = any(isinstance(gate, PromptGate) for gate in gates)
    if prompted and (plain is ParallelBlock or not config.pre_norm):
        raise InputError("prompts go with blocks of attention, then an MLP, each normed before; this model has others")
    places = {layer: i for i, layer in enumerate(range(first, config.depth, every))}
    if len(places) != len(gates) or not gates:
        raise InputError(f"{config.depth} blocks, a gate before every {every}, need {len(places)}, not {len(gates)}")

    def block(config: TransformerConfig, layer: int) -> Block:
        if layer not in places:
            return plain(config, layer)
        gate: Any = gates[places[layer]]
        if prompted:
            return PromptedBlock(config, layer, gate)
        return (GatedBlock if plain is Block else GatedParallelBlock)(config, layer, gate)

    language.body = Transformer(config, block)


def latest_only(places: Tensor, pictures: Tensor, pad: Tensor | None = None) -> Source:
    """What lets each token see the latest picture up to it, and those before the first none.

    places [B, T] is True where a picture stands; pictures [N, P, D] are their vectors in reading order. A row
    with fewer pictures than another is filled up. Where texts are packed apart, `pad` numbers them (`visible`),
    and a token sees no picture of another. What is seen where there is no picture yet are zeros, of which
    attention without biases makes zeros.

    Raises InputError, with both numbers, unless there are as many places as pictures.
    """
    if int(places.sum()) != len(pictures):
        raise InputError(
            f"the text has {int(places.sum())} places for pictures and there are {len(pictures)}; let the processor "
            "build the batch"
        )
    shown = places.cumsum(dim=1)  # [B, T], how many there have been
    number = torch.arange(int(shown.max()) + 1, device=places.device)  # 0 stands for none
    vectors = pictures.new_zeros(len(places), len(number), *pictures.shape[1:])
    vectors[(number > 0) & (number <= shown[:, -1:])] = pictures
    if pad is not None and pad.dtype != torch.bool:
        shown = shown * (visible(pad) & places[:, None]).any(dim=-1)
    mask = (shown[..., None] == number).repeat_interleave(pictures.shape[1], dim=-1)  # [B, T, S]
    return Source(vectors.flatten(1, 2), mask[:, None])
