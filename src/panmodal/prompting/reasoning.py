"""Chain of thought: steps that a model says before it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from panmodal.data.sample import Conversation, Text, user
from panmodal.families import Conversational


def ask_first(
    model: Conversational, conversations: Sequence[Conversation], question: str, rows: int = 16, **options: Any
) -> list[Conversation]:
    """The conversations, in each of which the pictures of the last turn have been asked about first: a turn of them and
    `question`, the model's answer to it, and then the turn's own text, still to be answered (two stages, as in MM-CoT,
    Zhang et al., 2023). `options` are those of `reply`."""
    looks = [[*before, user(*last.media, question)] for *before, last in conversations]
    answers = model.reply_all(looks, rows, **options)
    texts = [[part for part in said[-1].parts if isinstance(part, Text)] for said in conversations]
    return [[*look, seen, user(*text)] for look, seen, text in zip(looks, answers, texts, strict=True)]
