"""Stages: what is learned, from what, and at which rate by part. A part without a rate is frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from panmodal.data.media import Medium
from panmodal.data.processor import IGNORED, Encoded, Processor, pad_rows
from panmodal.data.sample import Batch, Sample
from panmodal.data.tokens import THINKING
from panmodal.errors import InputError, LabelError, suggest
from panmodal.language import logits_of
from panmodal.lora import Lora, beneath_adapters
from panmodal.training.anchored import Anchored
from panmodal.training.hybrid import Answering, Hybrid
from panmodal.training.losses import next_token_loss
from panmodal.training.masks import Masks
from panmodal.training.pairs import CaptionedPairs, Pairs, Regions, Representation
from panmodal.training.preference import Preference, blank
from panmodal.visibility import CONVERSATION


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    `data` names a data set; or several, of which every sample comes once an epoch; or some with their weights, the
    proportions in which their samples come. `rates` gives each part of the model its peak learning rate; "all" stands
    for the parts not named. The rate rises over the first `warmup` of the steps and falls along a cosine to
    `final` of its peak. A step learns from `batch` samples, `accumulate` times. With `lora` the language model gets
    adapters, and what its rate is for are these alone. `prefer` is how the objective of that name compares answers.
    """

    name: str
    objective: str
    data: str | tuple[str, ...] | Mapping[str, float]
    rates: Mapping[str, float]
    steps: int
    batch: int
    accumulate: int = 1
    warmup: float = 0.03
    final: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    precision: Literal["float32", "bfloat16", "auto"] = "float32"  # auto: bfloat16 where it is fast
    ema: float = 0.0  # 0: none; else the decay of an average of the weights, which is kept at the end
    lora: Lora | None = None
    prefer: Preference | None = None
    pack: bool | int = False  # conversations share rows of so many tokens; true: of the model's context
    checkpointing: bool = False  # keeps no activations of a block, but makes them again when they are needed
    compile: bool = False  # blocks are compiled, once for all lengths

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"unknown objective {self.objective!r}{suggest(self.objective, OBJECTIVES)}")
        if self.prefer is not None and self.objective != "prefer":
            raise InputError(f"stage {self.name!r} has settings of `prefer`, and its objective is {self.objective!r}")
        for name in ("steps", "batch", "accumulate"):
            if getattr(self, name) < 1:
                raise InputError(f"stage {self.name!r}: {name} is {getattr(self, name)}; it must be at least 1")
        if self.pack and not isinstance(OBJECTIVES[self.objective], Packing):
            packing = [name for name, objective in OBJECTIVES.items() if isinstance(objective, Packing)]
            raise InputError(f"stage {self.name!r}: {self.objective!r} packs nothing; {', '.join(packing)} do")

    @property
    def learns(self) -> Objective:
        """The objective, by its settings where it has any."""
        return self.prefer or OBJECTIVES[self.objective]


# A recipe may name one as `kind`: the two stages of LLaVA (Liu et al., 2023), with LLaVA-1.5's rates; those of BLIP-2
# (Li et al., 2023), the first without a language model; and those of MiniGPT-4 (Zhu et al., 2023).
PRESETS: dict[str, dict[str, Any]] = {
    "align": {"objective": "answers", "rates": {"connector": 1e-3}},
    "instruct": {"objective": "answers", "rates": {"connector": 2e-5, "language": 2e-5}},
    "represent": {
        "objective": "representation",
        "rates": {"qformer": 1e-4, "image_projection": 1e-4, "text_projection": 1e-4, "match_head": 1e-4},
        "weight_decay": 0.05,
    },
    "generate": {"objective": "answers", "rates": {"qformer": 1e-4, "connector": 1e-4}, "weight_decay": 0.05},
    "minigpt4-align": {"objective": "answers", "rates": {"connector": 1e-4}, "final": 0.8, "weight_decay": 0.05},
    "minigpt4-instruct": {"objective": "answers", "rates": {"connector": 3e-5}, "final": 0.33, "weight_decay": 0.05},
}


class Objective(Protocol):
    """How samples become a batch, and a batch a loss."""

    def encode(self, processor: Processor, sample: Sample) -> Any:
        """One sample, checked and decoded; raises InputError if it cannot be used."""

    def length(self, encoded: Any) -> int:
        """Samples of a step that are alike in this share a batch."""
        return 0  # the order is kept

    def batch(self, processor: Processor, encoded: Sequence[Any]) -> Batch: ...

    def weight(self, batch: Batch) -> int:
        """How many things the loss is the mean of, so that unequal batches count fairly together."""

    def loss(self, model: Any, batch: Batch) -> Tensor: ...


@runtime_checkable
class Conversing(Objective, Protocol):
    """What an objective of conversations does besides, so that processes can share them."""

    def measure(self, processor: Processor, sample: Sample) -> int:
        """`length`, before a picture is decoded, by which several processes share a step's samples."""

    def media(self, encoded: Any) -> Sequence[Medium]:
        """A conversation's media."""

    def blank(self, processor: Processor, kinds: Iterable[str]) -> Any:
        """A conversation that teaches nothing, with a medium of each of some kinds, which keeps a process that has no
        samples left, or none with such media, in step with the others."""


@runtime_checkable
class Packing(Conversing, Protocol):
    """What packs them."""

    def packed(self, processor: Processor, encoded: Sequence[Any]) -> Batch:
        """Conversations one after another in one row, none in sight of another: the loss is that of `batch`."""


@dataclass(frozen=True)
class NextToken:
    """The tokens that the assistant says, or, with `everything`, all of them.

    With `apart`, a turn after the last picture sees what comes up to it and itself, and no other turn: as
    many conversations of one question as there are, for the price of one picture. Without `thoughts`, those that an
    answer begins with are read, but not learned.
    """

    everything: bool = False
    apart: bool = False
    thoughts: bool = True

    def encode(self, processor: Processor, sample: Sample) -> Encoded:
        encoded = processor.encode(sample.messages)
        for medium in encoded.media:
            medium.check()
        if self.everything:
            return replace(encoded, learned=[i not in processor.placeholders for i in encoded.ids])
        if not any(encoded.learned):
            raise LabelError(
                f"none of the conversation's {len(sample.messages)} messages is the assistant's: 0 of its "
                f"{len(encoded.ids)} tokens are to learn"
            )
        return encoded if self.thoughts else replace(encoded, learned=_concluded(encoded, processor))

    def length(self, encoded: Encoded) -> int:
        return len(encoded.ids)

    def measure(self, processor: Processor, sample: Sample) -> int:
        return len(processor.encode(sample.messages).ids)

    def media(self, encoded: Encoded) -> Sequence[Medium]:
        return encoded.media

    def blank(self, processor: Processor, kinds: Iterable[str]) -> Encoded:
        return blank(processor, kinds)

    def batch(self, processor: Processor, encoded: Sequence[Encoded]) -> Batch:
        batch = processor.batch(encoded)
        if not self.apart:
            return batch
        turns = pad_rows([_turns(e, processor.placeholders) for e in encoded], 0).ids
        return replace(batch, pad=turns)

    def packed(self, processor: Processor, encoded: Sequence[Encoded]) -> Batch:
        """Positions begin anew with each, and all their pictures are one batch.

        What attention may see is a mask [1, 1, T, T], which on GPUs keeps it from the fastest kernels; rows of up
        to some thousand tokens are all the same cheaper than padding.
        """
        if len(encoded) == 1:
            return self.batch(processor, encoded)
        row = Encoded([], [], [], [], [])
        numbers: list[int] = []
        for i, one in enumerate(encoded):
            turns = _turns(one, processor.placeholders) if self.apart else [1] * len(one.ids)
            numbers += [i * CONVERSATION + turn for turn in turns]
            row.ids.extend(one.ids)
            row.learned.extend([False, *one.learned[1:]])  # nothing of it comes before its first token
            row.media.extend(one.media)
            row.vectors.extend(one.vectors)
            row.sizes.extend(one.sizes)
        return replace(processor.batch([row]), pad=torch.tensor([numbers]))

    def weight(self, batch: Batch) -> int:
        assert batch.labels is not None
        return int((batch.labels[:, 1:] != IGNORED).sum())

    def loss(self, model: Any, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return next_token_loss(model.read(batch), batch.labels, logits_of(model))


def _turns(encoded: Encoded, placeholders: set[int]) -> list[int]:
    """1 up to the last picture or video, or for the first token; then, from 2 on, the number of the turn that a token
    is in"""
    shared = max((i for i, token in enumerate(encoded.ids) if token in placeholders), default=0) + 1
    turns, turn = [1] * shared, 2
    for before, learned in pairwise(encoded.learned[shared - 1 :]):
        turn += before and not learned
        turns.append(turn)
    return turns


def _concluded(encoded: Encoded, processor: Processor) -> list[bool]:
    """What is to learn, each answer up to the end of its thoughts left out"""
    if (end := processor.tokenizer.id_of(THINKING[1])) is None:
        raise InputError(f"the model's tokenizer has no token {THINKING[1]!r}, at which thoughts end")
    thought, learned = False, list[bool]()
    for token, said in zip(reversed(encoded.ids), reversed(encoded.learned), strict=True):
        thought = said and (thought or token == end)
        learned.append(said and not thought)
    return learned[::-1]


OBJECTIVES: dict[str, Objective] = {
    "contrastive": Pairs(sigmoid=False),
    "sigmoid": Pairs(sigmoid=True),
    "contrastive_captioning": CaptionedPairs(sigmoid=False),
    "representation": Representation(sigmoid=False),
    "regions": Regions(),
    "points": Regions(points=True),
    "blip": Hybrid(),
    "captions": Hybrid(captions=True),
    "vqa": Answering(),
    "answers": NextToken(),
    "separate_answers": NextToken(apart=True),
    "conclusions": NextToken(apart=True, thoughts=False),
    "text": NextToken(everything=True),
    "anchored": Anchored(),
    "masks": Masks(),
    "prefer": Preference(),
}


def parameter_groups(model: nn.Module, stage: Stage) -> list[dict[str, Any]]:
    """The trained parameters with their peak rates for AdamW; freezes the others.

    Norms, biases and single numbers do not decay. Of a language model that has adapters, nothing else is trained.
    Raises InputError for a part the model lacks.
    """
    rates: dict[str, float] = {}
    frozen = beneath_adapters(model)
    for name, _ in model.named_parameters():
        parts = [part for part in stage.rates if name == part or name.startswith(part + ".")]
        rate = stage.rates[max(parts, key=len)] if parts else stage.rates.get("all", 0.0)
        if rate and name not in frozen:
            rates[name] = rate
    for part in stage.rates:
        if part != "all" and not any(n == part or n.startswith(part + ".") for n, _ in model.named_parameters()):
            raise InputError(
                f"stage {stage.name!r} gives a rate to {part!r}, which the model lacks"
                + suggest(part, {n.split(".")[0] for n, _ in model.named_parameters()})
            )
    groups: dict[tuple[float, float, type], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in rates)
        if name in rates:
            decay = stage.weight_decay if parameter.ndim > 1 else 0.0
            kind = type(parameter.data)  # shares of weights and whole ones are not updated together
            groups.setdefault((rates[name], decay, kind), []).append(parameter)
    return [{"params": ps, "peak": rate, "lr": rate, "weight_decay": decay} for (rate, decay, _), ps in groups.items()]
