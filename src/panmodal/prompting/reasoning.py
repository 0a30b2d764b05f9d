"""Chain of thought (M-CoT): how a model is brought to reason before it answers, and how its answer is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from panmodal.data.sample import Conversation, Message, Sample, Text, user
from panmodal.data.tokens import THINKING
from panmodal.errors import InputError, suggest
from panmodal.families import Conversational
from panmodal.prompting.chains import Chain, follow
from panmodal.prompting.examples import Examples, prompt

STEP_BY_STEP = "Let's think step by step."  # Kojima et al., 2022
NEXT = 'What is the next step? Once you know the answer, say "The answer is", and the answer.'
KNOWN = "answer is"  # in a step after which there is no next
DECOMPOSE = "Which simpler questions must be answered first? Write each on a line of its own, and no answers."
MOST_SUB_QUESTIONS = 6
WAYS = ("thoughts", "zero-shot", "few-shot", "two-stage", "adaptive", "least-to-most")
MOST_VOTES = 100
TEMPERATURE = 0.7  # of samples that vote
MAX_TOKENS = 256  # of a reply
ANSWER = re.compile(r"(?:\bthe (?:final )?)?\banswer is:?\s+(.+?)\s*(?:\.(?!\S)|\n|$)", re.IGNORECASE)
MARKS = " \t\n.,;:!?\"'*()[]"

Reader = Callable[[str], tuple[str, str | None]]


def ask_first(
    model: Conversational, conversations: Sequence[Conversation], question: str, rows: int = 16, **options: Any
) -> list[Conversation]:
    """The conversations, in each of which the pictures of the last turn have been asked about first: a turn of them and
    `question`, the model's answer to it, and then the turn's own text, still to be answered (two stages, as in MM-CoT,
    Zhang et al., 2023). `options` are those of `reply`."""
    looks = [[*before, user(*last.media, question)] for *before, last in conversations]
    answers = model.reply_all(looks, rows, **options)
    return [[*look, seen, _again(said)] for look, seen, said in zip(looks, answers, conversations, strict=True)]


def parted(text: str) -> tuple[str, str | None]:
    """What comes before the final answer, and that: the last X of "the answer is X", else the last line; after
    `</think>`, if there are thoughts. None where there is no answer."""
    opening, closing = THINKING
    thoughts, closed, said = text.rpartition(closing)
    if not closed and opening in text:  # they never ended
        return text, None
    told = list(ANSWER.finditer(said))
    before, answer = (said[: told[-1].start()], told[-1][1]) if told else _last_line(said)
    return f"{thoughts.replace(opening, '')}\n{before}".strip(), answer.strip(MARKS) or None


@dataclass(frozen=True)
class Solution:
    """An answer, or None, and the rationale before it: of samples that voted, that of the first with the answer.
    `votes` are the samples' answers."""

    rationale: str
    answer: str | None
    votes: tuple[str | None, ...]


def vote(told: Sequence[tuple[str, str | None]]) -> Solution:
    """Of rationales and answers the answer that comes most often, whatever its case; of several the one first seen
    (self-consistency, Wang et al., 2023)."""
    votes = tuple(answer for _, answer in told)
    counts = Counter(answer.lower() for answer in votes if answer is not None)
    if not counts:
        return Solution(told[0][0], None, votes)
    best = max(counts, key=lambda answer: counts[answer])
    rationale, answer = next((r, a) for r, a in told if a is not None and a.lower() == best)
    return Solution(rationale, answer, votes)


@dataclass(frozen=True)
class Reasoning:
    """How a model reasons.

    - `thoughts`: by itself, between `<think>` and `</think>`, if it does;
    - `zero-shot`: with `trigger` after the question;
    - `few-shot`: the same after `shots` of the `examples`, whose answers have rationales (Wei et al., 2022);
    - `two-stage`: a rationale as above, and then the question anew with the rationale (MM-CoT, Zhang et al., 2023);
    - `adaptive`: a step as above, and then one after another, until the model says what the answer is;
    - `least-to-most`: it asks itself simpler questions, answers each, and then the question (Zhou et al., 2023;
      DDCoT, Zheng et al., 2023).

    With more than one of `votes` as many samples are drawn, of seeds 0, 1, …, and `vote`.
    """

    way: str = "zero-shot"
    trigger: str = STEP_BY_STEP
    votes: int = 1
    examples: Examples | None = None
    shots: int = 4

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise InputError(f"unknown way to reason {self.way!r}{suggest(self.way, WAYS)}")
        if not 1 <= self.votes <= MOST_VOTES:
            raise InputError(f"votes is {self.votes}; it must lie between 1 and {MOST_VOTES}")

    def to_json(self) -> dict[str, Any]:
        """What results depend on, beside the examples"""
        return {"way": self.way, "trigger": self.trigger, "votes": self.votes, "shots": self.shots}

    def solve(
        self,
        model: Conversational,
        conversations: Sequence[Conversation],
        rows: int = 16,
        read: Reader = parted,
    ) -> list[Solution]:
        """What the model finds as answers to the conversations' last turns, by `read`."""
        rounds = []
        for seed in range(self.votes):
            options = {"temperature": TEMPERATURE, "seed": seed} if self.votes > 1 else {}
            said = self._run(model, conversations, rows, thoughts=True, max_tokens=MAX_TOKENS, **options)
            rounds.append([_read(turns, read) for turns in said])
        return [vote(told) for told in zip(*rounds, strict=True)]

    def _run(
        self, model: Conversational, conversations: Sequence[Conversation], rows: int, **options: Any
    ) -> list[list[str]]:
        """What the model says to each conversation, turn by turn"""
        first = {"thoughts": "", "least-to-most": DECOMPOSE}.get(self.way, self.trigger)
        chain = Chain((first, NEXT), KNOWN) if self.way == "adaptive" else Chain((first,))
        begun = [self._begun(model, said, number) for number, said in enumerate(conversations)]
        ends = chain.run(model, begun, rows, **options)
        if self.way == "least-to-most":
            ends = _answer_each(model, ends, rows, **options)
        spoken = [_replies(end[len(said) :]) for end, said in zip(ends, begun, strict=True)]
        if self.way not in ("two-stage", "least-to-most"):
            return spoken
        if self.way == "two-stage":
            again = [_with(said, rationale) for said, (rationale,) in zip(conversations, spoken, strict=True)]
        else:
            again = [[*end, _again(said)] for end, said in zip(ends, conversations, strict=True)]
        answers = Chain(("",)).run(model, again, rows, **options)
        return [[*told, end[-1].text] for told, end in zip(spoken, answers, strict=True)]

    def _begun(self, model: Conversational, said: Conversation, number: int) -> Conversation:
        """A conversation after the examples, if there are to be any"""
        if self.way != "few-shot":
            return said
        if self.examples is None:
            raise InputError("few-shot needs examples whose answers have rationales; the playground has them")
        chosen = self.examples.choose(Sample(tuple(said)), self.shots, number)
        return prompt(model, chosen, said, MAX_TOKENS)[0]


def sub_questions(text: str, most: int = MOST_SUB_QUESTIONS) -> list[str]:
    """The lines that are questions, without their numbers"""
    lines = (re.sub(r"^\W*(?:\d+[.):]\s*)?", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line.endswith("?")][:most]


def _answer_each(model: Conversational, ends: Sequence[Conversation], rows: int, **options: Any) -> list[Conversation]:
    """Goes on with the sub-questions that are last in each conversation"""
    asked = [sub_questions(end[-1].text.rpartition(THINKING[1])[2]) for end in ends]

    def following(number: int, said: Conversation) -> str | None:
        done = (len(said) - len(ends[number])) // 2
        return asked[number][done] if done < len(asked[number]) else None

    return follow(model, ends, following, rows, **options)


def _read(turns: Sequence[str], read: Reader) -> tuple[str, str | None]:
    """The rationale of all turns, and the answer in the last"""
    *earlier, last = turns
    before, answer = read(last)
    return "\n".join([*earlier, before]).strip(), answer


def _replies(said: Conversation) -> list[str]:
    return [message.text for message in said if message.role == "assistant"]


def _with(said: Conversation, rationale: str) -> Conversation:
    """The conversation, a rationale after the last turn's question"""
    *before, last = said
    return [*before, user(*last.parts, f"\n{rationale}")]


def _again(said: Conversation) -> Message:
    """The last turn's text"""
    return user(*(part for part in said[-1].parts if isinstance(part, Text)))


def _last_line(text: str) -> tuple[str, str]:
    before, _, line = text.rstrip().rpartition("\n")
    return before, line
