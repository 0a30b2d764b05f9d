"""Published benchmarks: what is asked, where answers stand, and how they are scored.

One class serves both ways: a model is asked the examples (`panmodal eval`), or answers that somebody has are read
from a file (`panmodal score`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image as Pil

from panmodal.data.media import Medium
from panmodal.data.sample import Conversation, Image, Message, Said, user
from panmodal.errors import InputError
from panmodal.evaluation.bootstrap import Score
from panmodal.evaluation.layouts import TABLES, read_records, read_table
from panmodal.families import Conversational
from panmodal.prompting.reasoning import ask_first

ROWS = 32  # answered at a time
BRIEFLY = "Answer the question using a single word or phrase."  # as LLaVA asks for short answers
T = TypeVar("T")
Progress = Callable[[int, int], None]  # examples done, of how many


@dataclass(frozen=True)
class Example:
    """A question: `id` is its own in its split, `parts` are its media and texts, `truth` is what answers are scored by,
    `about` what else its data set tells of it. `messages` hold copies of the media: what is decoded is not kept."""

    id: str
    parts: tuple[Said, ...]
    truth: Any
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[Message]:
        return [user(*(copy(part) for part in self.parts))]


@dataclass(frozen=True)
class Answer:
    """What somebody's file has: `id` as it stands there, `prompt` where it tells what was asked."""

    id: str
    text: str
    prompt: str = ""


class Made(Image):
    """A picture that is made when it is looked at, and again by each copy."""

    def __init__(self, make: Callable[[], Pil.Image]) -> None:
        super().__init__(b"")
        self.source = make

    @cached_property
    def pixels(self) -> Pil.Image:
        picture: Pil.Image = self.source()
        return picture


class Task(ABC):
    """A benchmark. Of `splits` the first is the usual one, and there are others if `open_splits`. `first` is asked of
    the pictures before the question, and the model's answer kept. `fields` are the pairs of names under which files of
    answers have a question's id and its answer, LLaVA's and the official ones. `metric` is what `marks` tell of.
    `rows` examples are answered together. Where `takes_shots`, solved examples may stand before a question.

    An answer is what a model gave, a text, or, where it gives something else or more, JSON, as ranks by name."""

    splits: tuple[str, ...] = ("test",)
    fields: ClassVar[tuple[tuple[str, str], ...]] = (("question_id", "text"), ("question_id", "answer"))
    kinds: ClassVar[tuple[type[Any], ...]] = (Conversational,)
    open_splits: bool = False
    takes_shots: bool = True
    first: str = ""
    max_tokens: int = 16
    rows: int = ROWS
    metric: str = "accuracy"

    @abstractmethod
    def examples(self, data: Path, split: str) -> Sequence[Example]:
        """A split from the data set's folder. Raises InputError for what is not there or malformed."""

    @abstractmethod
    def score(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> Score:
        """The metrics of the answers to all examples, by their ids."""

    @abstractmethod
    def mark(self, example: Example, answer: Any) -> float:
        """What an answer counts by itself: whether it is right, or a share of it."""

    def marks(self, examples: Sequence[Example], answers: Mapping[str, Any]) -> list[float]:
        """What each answer counts, for benchmarks that weigh it among the others."""
        return [self.mark(one, answers[one.id]) for one in examples]

    def answers(self, path: Path, examples: Sequence[Example]) -> dict[str, str]:
        """A file of answers, by the ids of the examples that they are to. Raises InputError for two answers to a
        question, and for answers to none of the examples."""
        answers = self.read(path)
        pairs = zip(self.ids(answers, examples), answers, strict=True)
        return matched([(key, answer.text) for key, answer in pairs if key is not None], examples, path)

    def read(self, path: Path) -> list[Answer]:
        """A file of answers: a list of records, in a wrapper or not, or one a line; a table; or one object, by ids."""
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file of answers")
        content = read_table(path) if path.suffix in TABLES else read_records(path)
        if isinstance(content, Mapping) and len(content) == 1:
            (value,) = content.values()
            content = value if isinstance(value, list) else content
        if isinstance(content, Mapping) and not any(key in content for key, _ in self.fields):
            content = [one if isinstance(one, Mapping) else {"id": key, "text": one} for key, one in content.items()]
        records = content if isinstance(content, list) else [content]
        return [self.answer(record, f"{path}, answer {number}") for number, record in enumerate(records, 1)]

    def answer(self, record: Any, place: str) -> Answer:
        """A record of such a file."""
        pairs = (*self.fields, ("id", "text")) if isinstance(record, Mapping) else ()
        for key, text in pairs:
            if record.get(key) is not None and record.get(text) is not None:
                return Answer(str(record[key]), str(record[text]), str(record.get("prompt", "")))
        wanted = " or ".join(f"{key!r} and {text!r}" for key, text in self.fields)
        raise InputError(f"{place}: an answer needs {wanted}, and this is {str(record)[:80]!r}")

    def ids(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Sequence[str | None]:
        """The id of the example that each answers; None of those that are to be left out."""
        return [answer.id for answer in answers]

    def ask(self, model: Any, examples: Sequence[Example]) -> Iterator[Any]:
        """A model's answers as they come, `rows` at a time."""
        for some in groups(examples, self.rows):
            asked = self.prompts(model, some)
            if self.first:
                asked = ask_first(model, asked, self.first, self.rows, max_tokens=self.max_tokens)
            yield from (reply.text for reply in model.reply_all(asked, rows=self.rows, max_tokens=self.max_tokens))

    def prompts(self, model: Any, examples: Sequence[Example]) -> list[Conversation]:
        """What a model that converses is asked. Raises InputError for questions that are not known, which scoring can
        do without."""
        for one in examples:
            if all(isinstance(part, Medium) for part in one.parts):
                raise InputError(
                    f"what is asked by question {one.id!r} is not known; its data set's questions are missing"
                )
        return [one.messages for one in examples]


def groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """As many of the items as `size` at a time"""
    return (items[start : start + size] for start in range(0, len(items), size))


def matched(pairs: Sequence[tuple[str, str]], examples: Sequence[Example], path: Path) -> dict[str, str]:
    """Answers by id, each to one of the examples, and to each example one at most."""
    known = {example.id for example in examples}
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{path} answers {len(twice):,} questions more than once, the first is {twice[0]!r}")
    strange = [key for key, _ in pairs if key not in known]
    if strange:
        raise InputError(
            f"{path} answers {len(strange):,} questions that are not in the split, the first is {strange[0]!r}; the "
            f"split has {len(examples):,}, the first is {examples[0].id!r}"
        )
    return dict(pairs)


def numbered(keys: Iterable[str]) -> list[str]:
    """Keys, of which those that come again are told apart by how often they have."""
    seen = Counter[str]()
    told = []
    for key in keys:
        seen[key] += 1
        told.append(key if seen[key] == 1 else f"{key} #{seen[key]}")
    return told


def answered(examples: Sequence[Example], answers: Mapping[str, str], partial: bool) -> Sequence[Example]:
    """The examples, if each has an answer; or those that have one, if a part will do."""
    there = [example for example in examples if example.id in answers]
    if not there or (len(there) < len(examples) and not partial):
        missing = next(example.id for example in examples if example.id not in answers)
        raise InputError(
            f"{len(examples) - len(there):,} of {len(examples):,} questions have no answer, the first is {missing!r}"
            + ("" if not there else "; --partial scores those that have one")
        )
    return there
