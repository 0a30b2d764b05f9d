"""Chains of steps that a model is asked for: how they go on, and what lies between two ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from panmodal.data.sample import Conversation, Said, user
from panmodal.errors import InputError
from panmodal.families import Chat, Conversational

BETWEEN = "What happened between these two? Say it in one sentence."


def follow(
    model: Conversational,
    conversations: Sequence[Conversation],
    following: Callable[[int, Conversation], str | None],
    rows: int = 16,
    **options: Any,
) -> list[Conversation]:
    """The conversations, each with the prompts that `following` gives for its number and what it has so far, and the
    model's replies to them, until that gives None. A prompt after a turn of the user's goes on with that turn. A
    conversation that the model has no more room for ends before the prompt. `options` are those of `reply`."""
    said = [list(conversation) for conversation in conversations]
    going: Sequence[int] = range(len(said))
    while prompts := {i: prompt for i in going if (prompt := following(i, said[i])) is not None}:
        asked = {i: _extended(said[i], prompt) for i, prompt in prompts.items()}
        asked = {i: more for i, more in asked.items() if said[i][-1].role == "user" or _fits(model, more)}
        replies = model.reply_all(list(asked.values()), rows, **options) if asked else []
        for (i, more), reply in zip(asked.items(), replies, strict=True):
            said[i] = [*more, reply]
        going = list(asked)
    return said


def _fits(model: Conversational, said: Conversation) -> bool:
    """Whether there is room for a reply, as far as that is known"""
    return not isinstance(model, Chat) or len(model.processor.expand(said, True).ids) < model.language.context


def _extended(said: Conversation, prompt: str) -> Conversation:
    """A conversation in which the user says one thing more: in his last turn, if the model has not answered it"""
    if not said or said[-1].role != "user":
        return [*said, user(prompt)]
    *before, last = said
    return [*before, user(*last.parts, f" {prompt}")] if prompt else said


@dataclass(frozen=True)
class Chain:
    """Prompts for steps, each asked for in sight of those before.

    Without `until` the steps are as many as the prompts. With it the model says how many: the last prompt comes again
    until a step has these words in it, whatever their case, or there are `most` steps.
    """

    prompts: tuple[str, ...]
    until: str = ""
    most: int = 8

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InputError("a chain needs at least one prompt")
        if self.most < 1:
            raise InputError(f"most is {self.most}; a chain has at least one step")

    def run(
        self, model: Conversational, conversations: Sequence[Conversation], rows: int = 16, **options: Any
    ) -> list[Conversation]:
        """The conversations with all steps at their ends. `options` are those of `reply`."""
        begun = [len(conversation) for conversation in conversations]

        def following(number: int, said: Conversation) -> str | None:
            steps = [message.text for message in said[begun[number] :] if message.role == "assistant"]
            if self.until and (len(steps) == self.most or any(self.until.lower() in s.lower() for s in steps[-1:])):
                return None
            if len(steps) < len(self.prompts):
                return self.prompts[len(steps)]
            return self.prompts[-1] if self.until else None

        return follow(model, conversations, following, rows, **options)


def infill(
    model: Conversational,
    gaps: Sequence[tuple[Sequence[Said], Sequence[Said]]],
    depth: int = 1,
    prompt: str = BETWEEN,
    rows: int = 16,
    **options: Any,
) -> list[list[str]]:
    """For each gap, given as what stands before and after it, the 2^depth - 1 steps in it, in order: first that in its
    middle, then those between it and either end (VCoT, Rose et al., 2023). `options` are those of `reply`."""
    if not depth or not gaps:
        return [[] for _ in gaps]
    asked = [[user(*before, "\n...\n", *after, f"\n{prompt}")] for before, after in gaps]
    middles = [reply.text for reply in model.reply_all(asked, rows, **options)]
    halves = [half for (a, b), middle in zip(gaps, middles, strict=True) for half in ((a, (middle,)), ((middle,), b))]
    inner = infill(model, halves, depth - 1, prompt, rows, **options)
    return [[*inner[2 * i], middle, *inner[2 * i + 1]] for i, middle in enumerate(middles)]
