"""Questions and models' answers to them, in the layout of LLaVA-Bench."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from panmodal.data.pictures import MAX_BYTES, read_file
from panmodal.data.readers import parsed
from panmodal.errors import InputError, at


@dataclass(frozen=True)
class Question:
    """`context` is what a judge who sees nothing is told of the picture; `image` is its file, for one who sees."""

    id: int | str
    text: str
    category: str = ""
    context: str = ""
    image: Path | None = None

    @cached_property
    def digest(self) -> str:
        """Of the picture's file; empty if there is none"""
        return hashlib.sha256(read_file(self.image, MAX_BYTES)).hexdigest() if self.image else ""


def read_questions(file: Path, contexts: Path | None = None, images: Path | None = None) -> list[Question]:
    """LLaVA-Bench's questions, JSON lines of `question_id`, `text`, and `image` and `category` if they have them.

    `contexts` says in words what is in the pictures, JSON lines of `image` and `caption` (or `captions`, and
    `instances` with their `category` and `bbox`); `images` is the folder of the pictures, to be shown.
    """
    told = {r["image"]: _in_words(r, contexts) for r in read_lines(contexts, {"image": str})} if contexts else {}
    questions = []
    for record in read_lines(file, {"question_id": int | str, "text": str}):
        name = str(record.get("image", ""))
        if contexts and name and name not in told:
            raise InputError(f"{contexts} has nothing about {name}, of question {record['question_id']!r} in {file}")
        image = images / name if images and name else None
        kind = str(record.get("category", ""))
        questions.append(Question(record["question_id"], record["text"], kind, told.get(name, ""), image))
    _refuse_twice((question.id for question in questions), file)
    return questions


def read_answers(file: Path) -> dict[Any, str]:
    """LLaVA's answers, JSON lines of `question_id` and `text`: the text by the question's id."""
    records = read_lines(file, {"question_id": int | str, "text": str})
    _refuse_twice((record["question_id"] for record in records), file)
    return {record["question_id"]: record["text"] for record in records}


def read_lines(file: Path, needed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises InputError, with the line, for what is none or lacks what is
    needed, the types by name."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})") from None
    records = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            with at(f"{file}, line {number}"):
                record = parsed(line)
                for name, kind in needed.items():
                    if not isinstance(record, dict) or not isinstance(record.get(name), kind):
                        raise InputError(f"an object with {', '.join(map(repr, needed))} is due, not {line[:80]!r}")
                records.append(record)
    return records


def _refuse_twice(ids: Iterable[Any], file: Path) -> None:
    twice = [i for i, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"{file} has question {twice[0]!r} more than once")


def _in_words(record: Mapping[str, Any], file: Path) -> str:
    """What a line of contexts says of a picture"""
    try:
        captions = record.get("captions") or record["caption"]
        boxes = [f"{thing['category']}: {thing['bbox']}" for thing in record.get("instances", [])]
        return "\n".join([captions, *boxes] if isinstance(captions, str) else [*captions, *boxes])
    except (KeyError, TypeError):
        raise InputError(f"{file}: of {record['image']} a caption is due, or captions and instances") from None
