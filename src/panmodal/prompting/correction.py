"""Correction after the fact: what a text says of a picture is looked up in the picture, and what does not hold is taken
back (Woodpecker, Yin et al., 2023)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from panmodal.data.sample import Image, user
from panmodal.families import Conversational
from panmodal.playground.words import is_there, listing, objects_named
from panmodal.prompting.reasoning import sub_questions

CLAIMS = (
    "This is said of a picture:\n\n{}\n\nAsk about each thing that it names, each attribute and each relation one "
    "question, whose answer is yes if what is said is so. Write each on a line of its own, and no answers."
)
SHORTLY = " Answer yes or no. If no, say in a few words what is there instead."
REWRITE = (
    "This is said of a picture:\n\n{}\n\nA look at the picture tells:\n\n{}\n\nWrite again what is said, so that it "
    "agrees: leave out what is not there, mend what is otherwise, keep all else as it stands, and add nothing."
)
MOST_CLAIMS = 24  # of a text
MAX_TOKENS = 256  # of questions, of an answer, and of what is rewritten


@dataclass(frozen=True)
class Checked:
    """A question about what a text says, and what the checker answers."""

    question: str
    answer: str

    @property
    def holds(self) -> bool:
        return re.match(r"\W*no\b", self.answer, re.IGNORECASE) is None


@dataclass(frozen=True)
class Corrected:
    """A text without what does not hold, and all that was asked."""

    text: str
    checked: tuple[Checked, ...]


class Writer(Protocol):
    """What knows what a text says. `shortly` is put after its questions."""

    shortly: ClassVar[str]

    def questions(self, texts: Sequence[str], rows: int) -> list[list[str]]:
        """For each text what is to be asked; yes is that it is right."""

    def rewritten(self, texts: Sequence[str], checked: Sequence[Sequence[Checked]], rows: int) -> list[str]:
        """Texts of which not all holds, as it does."""


@dataclass(frozen=True)
class Prompted:
    """A chat model that is told what to write. It need not see."""

    model: Conversational

    shortly: ClassVar[str] = SHORTLY

    def questions(self, texts: Sequence[str], rows: int) -> list[list[str]]:
        replies = self.model.reply_all([[user(CLAIMS.format(text))] for text in texts], rows, max_tokens=MAX_TOKENS)
        return [sub_questions(reply.text, MOST_CLAIMS) for reply in replies]

    def rewritten(self, texts: Sequence[str], checked: Sequence[Sequence[Checked]], rows: int) -> list[str]:
        told = ["\n".join(f"{one.question} {one.answer}" for one in several) for several in checked]
        asked = [[user(REWRITE.format(text, seen))] for text, seen in zip(texts, told, strict=True)]
        return [reply.text.strip() for reply in self.model.reply_all(asked, rows, max_tokens=MAX_TOKENS)]


@dataclass(frozen=True)
class PlaygroundCaptions:
    """Brief and detailed captions of the playground, for checkers too small to be told what to write: whether each
    thing is there is asked by its colour and shape, and things that are not are left out."""

    shortly: ClassVar[str] = ""

    def questions(self, texts: Sequence[str], rows: int) -> list[list[str]]:
        return [list(dict.fromkeys(filter(None, map(_question, _items(text))))) for text in texts]

    def rewritten(self, texts: Sequence[str], checked: Sequence[Sequence[Checked]], rows: int) -> list[str]:
        out = []
        for text, several in zip(texts, checked, strict=True):
            gone = {one.question for one in several if not one.holds}
            kept = [item for item in _items(text) if _question(item) not in gone]
            out.append(", ".join(kept) if text.startswith("on a ") else listing(kept or [""]))
        return out


def _items(caption: str) -> list[str]:
    return re.split(", | and ", caption)


def _question(item: str) -> str:
    """The question about an item of a caption, if it names a thing"""
    return next((is_there(*thing) for thing in objects_named(item)), "")


@dataclass(frozen=True)
class Correction:
    """A `checker`, which looks at pictures, and a `writer`, which knows what is said of them."""

    checker: Conversational
    writer: Writer

    def correct(self, pictures: Sequence[Sequence[Image]], texts: Sequence[str], rows: int = 16) -> list[Corrected]:
        """Texts, each with the pictures that it is about."""
        asked = self.writer.questions(texts, rows)
        looks = [
            [user(*shown, question + self.writer.shortly)]
            for shown, questions in zip(pictures, asked, strict=True)
            for question in questions
        ]
        replies = iter(self.checker.reply_all(looks, rows, max_tokens=MAX_TOKENS))
        checked = [tuple(Checked(one, next(replies).text.strip()) for one in questions) for questions in asked]
        wrong = [i for i, several in enumerate(checked) if not all(one.holds for one in several)]
        again = self.writer.rewritten([texts[i] for i in wrong], [checked[i] for i in wrong], rows)
        mended = dict(zip(wrong, again, strict=True))
        return [Corrected(mended.get(i, text), checked[i]) for i, text in enumerate(texts)]

    def to_json(self) -> dict[str, Any]:
        """What results depend on"""
        return {"checker": self.checker.name, "writer": type(self.writer).__name__}
