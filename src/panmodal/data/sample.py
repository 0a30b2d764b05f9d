"""Parts, messages, and batches: the one data type.

The JSON form is that of the OpenAI chat API's content parts: a message is
`{"role": "user", "content": [{"type": "text", "text": "…"}, {"type": "image_url", "image_url":
{"url": "cat.jpg"}}]}`; content may also be a plain string. A picture's URL is a path (relative to
the file that it stands in) or a `data:` URL.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from panmodal.errors import InputError, suggest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image as Pil
    from torch import Tensor

    Picture = str | os.PathLike[str] | bytes | Pil.Image | np.ndarray[Any, Any]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    text: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class Image:
    """A picture: a path, a `data:` URL, the bytes of an image file, a PIL image or an array
    [height, width, 3] of uint8. It is decoded when first looked at; see `data.pictures`."""

    def __init__(self, source: Picture) -> None:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            raise InputError(f"remote pictures are not fetched: download {source} and pass its path")
        if isinstance(source, str) and source.startswith("data:"):
            source = _from_data_url(source)
        self.source = source

    def __repr__(self) -> str:
        return f"Image({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def name(self) -> str:
        """The path, or what the picture was made from."""
        if isinstance(self.source, str | os.PathLike):
            return os.fspath(self.source)
        return f"<{type(self.source).__name__}>"

    @cached_property
    def pixels(self) -> Pil.Image:
        """The decoded picture, RGB, upright. Raises InputError if it cannot be decoded."""
        from panmodal.data.pictures import decode

        return decode(self.source, self.name)

    @cached_property
    def key(self) -> str:
        """A digest of the pixels and their arrangement: two pictures with one key are the same."""
        pixels = self.pixels
        digest = hashlib.sha256(f"{pixels.mode} {pixels.size}".encode())
        digest.update(pixels.tobytes())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        url = self.name if isinstance(self.source, str | os.PathLike) else self._data_url()
        return {"type": "image_url", "image_url": {"url": url}}

    def _data_url(self) -> str:
        out = io.BytesIO()
        self.pixels.save(out, "PNG")
        return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


Part = Text | Image


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and what in."""

    role: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"unknown role {self.role!r}{suggest(self.role, ROLES)}")

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def images(self) -> list[Image]:
        return [part for part in self.parts if isinstance(part, Image)]

    def to_json(self) -> dict[str, Any]:
        if all(isinstance(part, Text) for part in self.parts):
            return {"role": self.role, "content": self.text}
        return {"role": self.role, "content": [part.to_json() for part in self.parts]}

    @classmethod
    def from_json(cls, value: Any, folder: Path | None = None) -> Self:
        """Reads the JSON form; relative paths are taken from `folder`."""
        if not isinstance(value, Mapping) or "role" not in value or "content" not in value:
            raise InputError(f"a message needs 'role' and 'content', and this is {str(value)[:80]!r}")
        content = value["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, Sequence):
            raise InputError(f"a message's content is a string or a list of parts, not {content!r}")
        return cls(value["role"], tuple(_part_from_json(part, folder) for part in content))


Conversation = list[Message]
Said = str | Image | Part


def user(*parts: Said) -> Message:
    """`user("What is this?", Image("cat.jpg"))`"""
    return Message("user", _parts(parts))


def assistant(*parts: Said) -> Message:
    return Message("assistant", _parts(parts))


def system(*parts: Said) -> Message:
    return Message("system", _parts(parts))


@dataclass(frozen=True)
class Sample:
    """A conversation to learn from or to be asked, and what else its line in a file says."""

    messages: tuple[Message, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"messages": [m.to_json() for m in self.messages], **self.about}

    @classmethod
    def from_json(cls, value: Any, folder: Path | None = None) -> Self:
        if not isinstance(value, Mapping) or not isinstance(value.get("messages"), list):
            raise InputError(f"a sample needs a list 'messages', and this is {str(value)[:80]!r}")
        messages = tuple(Message.from_json(m, folder) for m in value["messages"])
        return cls(messages, {k: v for k, v in value.items() if k != "messages"})

    @property
    def images(self) -> list[Image]:
        return [image for message in self.messages for image in message.images]


@dataclass(frozen=True)
class Batch:
    """Tensors for a model, shapes final: placeholders are expanded, nothing is re-padded later.

    ids [B, T]; pad [B, T], True where a token is real, None if all are; labels [B, T], the token
    itself where it is to be learned and -100 elsewhere; images [N, 3, H, W] in reading order, whose
    vectors take the places where ids is the image token; regions [R, 5], the number of a picture
    and a box in it, x0 y0 x1 y1 from 0 to 1.
    """

    ids: Tensor
    pad: Tensor | None = None
    labels: Tensor | None = None
    images: Tensor | None = None
    regions: Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        present = {f.name: t for f in fields(self) if (t := getattr(self, f.name)) is not None}
        return Batch(**{name: t.to(device) for name, t in present.items()})

    def by_length(self, groups: int = 4) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The texts in groups of like length, so that little is spent on padding: which rows, their ids
        and their pad."""
        pad = self.ids == self.ids if self.pad is None else self.pad
        lengths = pad.sum(dim=1)
        for rows in lengths.argsort().chunk(groups):
            longest = int(lengths[rows].max())
            yield rows, self.ids[rows, :longest], pad[rows, :longest]


def as_conversation(said: str | Message | Iterable[Message]) -> Conversation:
    """A question, a message or several, as a conversation."""
    if isinstance(said, str):
        return [user(said)]
    return [said] if isinstance(said, Message) else list(said)


def _parts(parts: Iterable[Said]) -> tuple[Part, ...]:
    return tuple(Text(part) if isinstance(part, str) else part for part in parts)


def _part_from_json(value: Any, folder: Path | None) -> Part:
    kinds = ("text", "image_url")
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text" and isinstance(value.get("text"), str):
        return Text(value["text"])
    if kind == "image_url":
        url = value.get("image_url")
        url = url.get("url") if isinstance(url, Mapping) else url
        if isinstance(url, str):
            return Image(folder / url if folder is not None and "://" not in url and url[:5] != "data:" else url)
    raise InputError(f"cannot read the part {str(value)[:80]!r}{suggest(str(kind), kinds)}")


def _from_data_url(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError(f"a data URL must be base64 ('data:image/png;base64,…'), not {head[:40]!r}")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InputError(f"a data URL with broken base64: {error}") from None
