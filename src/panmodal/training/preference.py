"""Learning from preferences: of two answers the better one is to become likelier, and the worse one less likely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.media import Audio, Medium, Video
from panmodal.data.processor import IGNORED, Encoded, Processor, pad_rows
from panmodal.data.sample import Batch, Image, Sample, assistant, user
from panmodal.errors import InputError
from panmodal.language import LanguageModel
from panmodal.lora import adapters_off, is_adapter

BLANKS: dict[str, Medium] = {  # black, and silence
    "image": Image(np.zeros((8, 8, 3), np.uint8)),
    "video": Video(np.zeros((1, 8, 8, 3), np.uint8), rate=1),
    "audio": Audio(np.zeros(1600, np.float32), rate=16_000),
}
PROMPT, CHOSEN, REJECTED = 1, 2, 3  # in `Batch.pad`: what both answers see, and the two, blind to each other
Compared = tuple[Encoded, list[int]]  # a prompt and both answers, and which of these each token belongs to


@dataclass(frozen=True)
class Preference:
    """A sample's `messages` are a prompt, `chosen` and `rejected`, in what else it says, two answers to it.

    A row is the prompt and after it both answers, neither of which sees the other: a picture is encoded, and a prompt
    read, once for the two. What the model was before, the reference, is the model with its adapters switched off.
    With s the log of how much likelier an answer is than the reference makes it, the loss is, by `kind`,

    - "dpo": -log sigmoid(beta * (s of chosen - s of rejected)) (Rafailov et al., 2023);
    - "ipo": (s of chosen - s of rejected - 1 / (2 * beta)) ** 2, s the mean of its tokens (Azar et al., 2023);
    - "dense": as "dpo", s the mean of its tokens, in which those that differ between the two answers count `gamma`
      times (RLHF-V, Yu et al., 2024, with beta 0.5 and gamma 5).

    To it is added `sft` times the loss of the chosen answer alone, the mean of -log p of its tokens (Pang et al., 2024,
    with 1; Llama 3 with 0.2). For of two answers one can be far likelier than the other though neither is likely, and
    then what is said is neither.
    """

    kind: Literal["dpo", "ipo", "dense"] = "dpo"
    beta: float = 0.1
    gamma: float = 5.0
    sft: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.gamma <= 0 or self.sft < 0:
            raise InputError(f"{self}: beta and gamma must be above 0, sft at least 0")

    def encode(self, processor: Processor, sample: Sample) -> Compared:
        compared = self.compare(processor, sample)
        for medium in self.media(compared):
            medium.check()
        return compared

    def measure(self, processor: Processor, sample: Sample) -> int:
        return self.length(self.compare(processor, sample))

    def media(self, encoded: Compared) -> Sequence[Medium]:
        return encoded[0].media

    def blank(self, processor: Processor, kinds: Iterable[str]) -> Compared:
        nothing = blank(processor, kinds)
        return nothing, [PROMPT] * len(nothing.ids)

    def compare(self, processor: Processor, sample: Sample) -> Compared:
        said = [sample.about.get("chosen"), sample.about.get("rejected")]
        if not sample.messages or sample.messages[-1].role != "user" or not all(isinstance(s, str) for s in said):
            raise InputError("a preference needs a conversation that ends with the user, and texts chosen and rejected")
        if said[0] == said[1]:
            raise InputError(f"chosen and rejected are the same: {str(said[0])[:60]!r}")
        chosen, rejected = (processor.encode([*sample.messages, assistant(str(text))]) for text in said)
        prompt = _prompt(chosen)
        if rejected.ids[:prompt] != chosen.ids[:prompt] or _prompt(rejected) != prompt:
            raise InputError("the tokens of the prompt are not the same before both answers")
        ids = [*chosen.ids, *rejected.ids[prompt:]]
        turns = [PROMPT] * prompt + [CHOSEN] * (len(chosen.ids) - prompt) + [REJECTED] * (len(rejected.ids) - prompt)
        return replace(chosen, ids=ids, learned=[turn != PROMPT for turn in turns]), turns

    def length(self, encoded: Compared) -> int:
        return len(encoded[1])

    def batch(self, processor: Processor, encoded: Sequence[Compared]) -> Batch:
        batch = processor.batch([row for row, _ in encoded])
        return replace(batch, pad=pad_rows([turns for _, turns in encoded], 0).ids)

    def weight(self, batch: Batch) -> int:
        return int(_real(batch).sum())

    def loss(self, model: Any, batch: Batch) -> Tensor:
        return self.told(model, batch)[0]

    def told(self, model: Any, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss; and `reward_margin`, beta * (s of chosen - s of rejected), and `reward_accuracy`, how often that
        is above zero."""
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not trained or not all(map(is_adapter, trained)):
            raise InputError(
                "`prefer` needs adapters, and nothing else that is trained, for the model without them is its "
                "reference: give the stage `lora`, and a rate to the language model alone"
            )
        now, before = with_and_without(model, batch)
        real = _real(batch)
        if not real.any():
            nothing = 0 * now.sum()
            return nothing, {name: nothing.detach() for name in ("reward_margin", "reward_accuracy")}
        gained = (self.scores(batch, now) - self.scores(batch, before))[real]
        ahead = gained @ torch.tensor([1.0, -1.0], device=gained.device)
        loss = (ahead - 1 / (2 * self.beta)) ** 2 if self.kind == "ipo" else -F.logsigmoid(self.beta * ahead)
        if self.sft:
            assert batch.pad is not None
            chosen = (batch.pad == CHOSEN)[real]
            loss = loss - self.sft * (now[real] * chosen).sum(dim=1) / chosen.sum(dim=1)
        margin = self.beta * ahead.detach()
        return loss.mean(), {"reward_margin": margin.mean(), "reward_accuracy": (margin > 0).float().mean()}

    def scores(self, batch: Batch, tokens: Tensor) -> Tensor:
        """tokens [B, T], log probabilities -> how likely the chosen answers and the rejected are [B, 2]"""
        assert batch.pad is not None
        weights = torch.ones_like(tokens)
        if self.kind == "dense":
            weights[corrected(batch)] = self.gamma
        each = [weights * (batch.pad == answer) for answer in (CHOSEN, REJECTED)]
        sums = torch.stack([(w * tokens).sum(dim=1) for w in each], dim=1)
        return sums if self.kind == "dpo" else sums / torch.stack([w.sum(dim=1) for w in each], dim=1).clamp(min=1e-9)


def with_and_without(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """`log_probs` by the model, and by the model without its adapters. What comes before the language model's blocks,
    such as the encoding of pictures, is frozen, and done once."""
    language = model if isinstance(model, LanguageModel) else model.language
    given: list[tuple[Any, Any]] = []
    hook = language.body.register_forward_pre_hook(lambda _, *seen: given.append(seen), with_kwargs=True)
    try:
        now = log_probs(model.read(batch), batch, language.logits)
    finally:
        hook.remove()
    positional, named = given[0]
    with torch.no_grad(), adapters_off(language):
        return now, log_probs(language.body(*positional, **named), batch, language.logits)


def log_probs(hidden: Tensor, batch: Batch, head: Callable[[Tensor], Tensor]) -> Tensor:
    """How likely each token of either answer is after those before it, [B, T] logarithms, 0 for the prompt's; hidden
    [B, T, D], of which `head` makes logits."""
    assert batch.pad is not None
    turns = batch.pad
    prompt, chosen = (turns == PROMPT).sum(dim=1), (turns == CHOSEN).sum(dim=1)
    before = torch.arange(-1, turns.shape[1] - 1, device=turns.device).repeat(len(turns), 1)
    first = (prompt + chosen).clamp(max=turns.shape[1] - 1)[:, None]  # token of the rejected, which too
    before.scatter_(1, first, (prompt - 1)[:, None])  # follows the prompt
    row, place = (turns >= CHOSEN).nonzero(as_tuple=True)
    logits = head(hidden[row, before[row, place]]).float()
    found = logits.log_softmax(dim=-1).gather(-1, batch.ids[row, place, None])[:, 0]
    return found.new_zeros(turns.shape).index_put((row, place), found)


def corrected(batch: Batch) -> Tensor:
    """Where an answer's tokens are not the other's, [B, T] bool: what is left when the two are laid one upon the other
    by their longest common stretches."""
    assert batch.pad is not None
    changed = torch.zeros(batch.ids.shape, dtype=torch.bool)
    for row, ids, turns in zip(changed, batch.ids.tolist(), batch.pad.tolist(), strict=True):
        if CHOSEN not in turns:  # a blank row
            continue
        starts = turns.index(CHOSEN), turns.index(REJECTED)
        chosen, rejected = ([i for i, t in zip(ids, turns, strict=True) if t == turn] for turn in (CHOSEN, REJECTED))
        for kind, *spans in SequenceMatcher(None, chosen, rejected, autojunk=False).get_opcodes():
            if kind != "equal":
                row[starts[0] + spans[0] : starts[0] + spans[1]] = True
                row[starts[1] + spans[2] : starts[1] + spans[3]] = True
    return changed.to(batch.ids.device)


def blank(processor: Processor, kinds: Iterable[str]) -> Encoded:
    """A conversation of which nothing is learned, with a medium of each of some kinds."""
    return processor.encode([user(*(BLANKS[kind] for kind in kinds), "none")], reply=True)


def _real(batch: Batch) -> Tensor:
    """Which rows are to be learned from, [B]"""
    assert batch.labels is not None
    return (batch.labels != IGNORED).any(dim=1)


def _prompt(encoded: Encoded) -> int:
    """How many tokens come before the last answer."""
    return len(encoded.learned) - encoded.learned[::-1].index(False)
