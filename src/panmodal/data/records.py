"""One record of a data set, in any of the forms that are about, as a sample.

What a record has tells its form: `messages` (panmodal's, or with `images` as LLaMA-Factory writes them),
`conversations` (LLaVA's and ShareGPT's), a picture with a `caption`, or with a `question` and an `answer`, and for
preferences a prompt with what was `chosen` and what `rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from panmodal.data.media import MEDIA, Medium, plural
from panmodal.data.sample import Image, Message, Part, Sample, Text, assistant, user
from panmodal.errors import InputError, PlaceholderError

Record = Mapping[str, Any]

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PICTURES = ("image", "images", "picture", "file_name")  # the names that a record's pictures go by
CAPTIONS = ("caption", "text")
QUESTIONS = ("question", "prompt")
PREFERRED = {"chosen": "preferred_output", "rejected": "non_preferred_output"}  # ours, and OpenAI's
FORMS = (
    "messages; conversations (LLaVA, ShareGPT); a picture (image, picture or file_name) with a caption or text; a "
    "picture with question and answer; prompt, chosen and rejected"
)


def form_of(record: Any) -> str | None:
    """The form of a record; None if it has none that is known."""
    if not isinstance(record, Mapping):
        return None
    if all(ours in record or theirs in record for ours, theirs in PREFERRED.items()):
        return "preference"
    for form in ("messages", "conversations"):
        if form in record:
            return form
    if "answer" in record and _first(QUESTIONS, record):
        return "question"
    return "caption" if _first(CAPTIONS, record) and _first(PICTURES, record) else None


def to_sample(record: Any, folder: Path) -> Sample:
    """A record as a sample; relative paths are taken from `folder`. What the form does not use goes to `about`.

    Raises InputError for a record of no known form, and PlaceholderError unless pictures and placeholders match one
    to one.
    """
    form = form_of(record)
    if form is None:
        found = f"the fields {', '.join(map(str, record)) or 'of nothing'}" if isinstance(record, Mapping) else record
        raise InputError(f"a record of no known form, with {str(found)[:200]}; known forms: {FORMS}")
    if form == "preference":
        return _preference(record, folder)
    if form == "conversations":
        return _conversation(record, "conversations", folder)
    if form == "messages":
        shown = any(key in record for key in ("image", "images", "videos", "audios"))
        return _conversation(record, "messages", folder) if shown else Sample.from_json(record, folder)
    media = _Media(record, folder)
    asked, said = "", "answer"
    if form == "question":
        asked = str(_first(QUESTIONS, record))
    else:
        said = str(_first(CAPTIONS, record))
        if not media.media["image"]:
            raise InputError("the record has a caption and no picture")
    messages = (_asked(record.get(asked, ""), media), assistant(_string(record[said], said)))
    return Sample(messages, _rest(record, *PICTURES, asked, said))


class _Media:
    """A record's media, which the placeholders in its texts stand for in turn."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.folder = folder
        given = {"image": _first(PICTURES, record), "video": "videos", "audio": "audios"}
        self.media: dict[str, list[Medium]] = {"image": []}
        for kind, key in given.items():
            value = record.get(key) if key else None
            if value not in (None, "", []):
                several = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
                self.media[kind] = [_medium(kind, one, folder) for one in several]
        self.taken = dict.fromkeys(self.media, 0)
        self.places = re.compile(rf"\s*<({'|'.join(self.media)})>\s*")

    def parts(self, text: str) -> Iterable[Part]:
        """A text, with a medium in each placeholder's place"""
        pieces = self.places.split(text)  # text, kind, text, kind, …
        for i, piece in enumerate(pieces):
            if i % 2:
                yield from self.take(piece)
            elif piece:
                yield Text(piece)

    def take(self, kind: str) -> list[Medium]:
        """The next one, if there is one left; that there is, `check` tells with both counts"""
        self.taken[kind] = self.taken.get(kind, 0) + 1
        return self.media.get(kind, [])[self.taken[kind] - 1 : self.taken[kind]]

    def check(self) -> None:
        for kind, taken in self.taken.items():
            if (count := len(self.media.get(kind, []))) != taken:
                raise PlaceholderError(
                    f"the record has {count} {plural(kind)} and its text {taken} placeholders <{kind}>"
                )


def _medium(kind: str, value: Any, folder: Path) -> Medium:
    if isinstance(value, Mapping):  # as Hugging Face's tables hold files
        value = next((value[key] for key in ("bytes", "path", "url") if value.get(key)), None)
    if isinstance(value, str) and "://" not in value and not value.startswith("data:"):
        value = folder / value
    if value is None or isinstance(value, int | float | list):
        raise InputError(f"a record's {kind} is a path or a file's content, not {value!r}")
    return Image(value) if kind == "image" else MEDIA[kind](value)


def _conversation(record: Record, key: str, folder: Path) -> Sample:
    """LLaVA's and ShareGPT's record: pictures, and turns of `from` and `value`, or of `role` and `content`."""
    media = _Media(record, folder)
    messages = _turns(record[key], media)
    if isinstance(record.get("system"), str) and record["system"]:
        messages = (Message("system", (Text(record["system"]),)), *messages)
    media.check()
    return Sample(messages, _rest(record, *PICTURES, "videos", "audios", "system", key))


def _turns(turns: Any, media: _Media) -> tuple[Message, ...]:
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise InputError(f"a conversation is a list of turns, not {str(turns)[:80]!r}")
    return tuple(_turn(turn, media) for turn in turns)


def _turn(turn: Any, media: _Media) -> Message:
    said = turn if isinstance(turn, Mapping) else {}
    speaker, content = said.get("from", said.get("role")), said.get("value", said.get("content"))
    if speaker not in SPEAKERS or not isinstance(content, str | Sequence):
        raise InputError(
            "a turn needs 'from' (human or gpt) and 'value', or 'role' (user or assistant) and 'content', and this is "
            f"{str(turn)[:80]!r}"
        )
    parts: list[Part] = []
    for part in [content] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, str):
            parts += media.parts(part)
        elif kind in media.media and not part.get(kind):  # a bare {"type": "image"}
            parts += media.take(str(kind))
        else:
            parts += Message.from_json({"role": "user", "content": [part]}, media.folder).parts
    return Message(SPEAKERS[speaker], tuple(parts))


def _preference(record: Record, folder: Path) -> Sample:
    """The prompt as messages, and the two answers, `chosen` and `rejected`, in `about`."""
    answers = {ours: record.get(ours, record.get(theirs)) for ours, theirs in PREFERRED.items()}
    media = _Media(record, folder)
    asked = record.get("input")
    given = asked if isinstance(asked, Mapping) else record  # OpenAI's has the messages in `input`
    key = _first(("messages", "conversations", *QUESTIONS), given)
    chosen = answers["chosen"]
    if key is None and isinstance(chosen, Sequence) and len(chosen) > 1:  # both are whole conversations
        messages = _turns(chosen[:-1], media)
        media.check()
    elif key is not None and not isinstance(given[key], str):
        messages = _turns(given[key], media)
        media.check()
    else:
        messages = (_asked(given.get(key or ""), media),)
    if not messages or messages[-1].role == "assistant":
        raise InputError("a preference's prompt must end with what the user says")
    said = {name: _answer(value, name) for name, value in answers.items()}
    return Sample(messages, {**_rest(record, *PICTURES, *PREFERRED.values(), key or "", "input"), **said})


def _answer(value: Any, name: str) -> str:
    """What was said: a text, a turn, or a conversation's last turn"""
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        value = value[-1]
    if isinstance(value, Mapping):
        value = value.get("value", value.get("content"))
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = "".join(part.get("text") or "" for part in value if isinstance(part, Mapping))
    return _string(value, name)


def _asked(question: Any, media: _Media) -> Message:
    """What the user says: where it has no placeholders, after the pictures"""
    parts = tuple(media.parts(_string(question, "question")))
    if any(media.taken.values()):
        media.check()
        return Message("user", parts)
    return user(*(medium for some in media.media.values() for medium in some), *parts)


def _string(value: Any, name: str) -> str:
    if value is None or isinstance(value, Mapping | list | bytes):
        raise InputError(f"a record's {name} is a text, not {str(value)[:80]!r}")
    return str(value)


def _first(names: Iterable[str], record: Record) -> str | None:
    return next((name for name in names if name in record), None)


def _rest(record: Record, *used: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in used}
