"""Parts, messages, and batches: the one data type.

The JSON form is that of the OpenAI chat API's content parts: a message is
`{"role": "user", "content": [{"type": "text", "text": "…"}, {"type": "image_url", "image_url":
{"url": "cat.jpg"}}]}`; content may also be a plain string. A URL is a path (relative to the file that
it stands in) or a `data:` URL. Other media are `input_audio` (base64) or `audio_url`, `video_url`,
`depth_url`, `thermal_url` and `imu_url`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from panmodal.data.media import MEDIA, SUFFIXES, Audio, Medium, from_base64
from panmodal.errors import InputError, suggest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image as Pil
    from torch import Tensor

    Picture = str | os.PathLike[str] | bytes | Pil.Image | np.ndarray[Any, Any]

ROLES = ("system", "user", "assistant")
DETAILS = ("auto", "low", "high")


@dataclass(frozen=True)
class Text:
    text: str

    def to_json(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class Image(Medium):
    """A picture: a path, a `data:` URL, the bytes of an image file, a PIL image or an array
    [height, width, 3] of uint8. It is decoded when first looked at; see `data.pictures`.

    `detail` is for models that look at tiles of a picture as well: "low" for the whole picture alone, "high"
    for tiles always; "auto" as the model was trained.
    """

    kind = "image"
    noise = 0  # steps of diffusion through which a model sees it; see `data.noise`

    def __init__(self, source: Picture, detail: str = "auto") -> None:
        super().__init__(source)
        if detail not in DETAILS:
            raise InputError(f"unknown detail {detail!r}{suggest(detail, DETAILS)}")
        self.detail = detail

    @cached_property
    def pixels(self) -> Pil.Image:
        """The decoded picture, RGB, upright. Raises InputError if it cannot be decoded."""
        from panmodal.data.pictures import decode

        return decode(self.source, self.name)

    def check(self) -> None:
        self.pixels  # noqa: B018

    @cached_property
    def key(self) -> str:
        """A digest of the pixels and their arrangement: two pictures with one key are the same."""
        pixels = self.pixels
        digest = hashlib.sha256(f"{pixels.mode} {pixels.size}".encode())
        digest.update(pixels.tobytes())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        value = super().to_json()
        if self.detail != "auto":
            value["image_url"]["detail"] = self.detail
        return value

    def _file(self) -> tuple[str, bytes]:
        """A JPEG as it is, for it would grow, if its pixels are those that are seen here; else PNG."""
        from panmodal.data.pictures import jpeg_as_seen

        self.check()
        if (jpeg := jpeg_as_seen(self.source)) is not None:
            return "image/jpeg", jpeg
        out = io.BytesIO()
        self.pixels.save(out, "PNG")
        return "image/png", out.getvalue()


Part = Text | Medium


class Guise(Image):
    """A picture under another `key`, for a model that makes of it something else than of its pixels alone."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.source, image.detail)
        self.image, self.noise = image, image.noise

    @cached_property
    def pixels(self) -> Pil.Image:
        return self.image.pixels


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

    @property
    def media(self) -> list[Medium]:
        """The parts that are no text, pictures among them."""
        return [part for part in self.parts if isinstance(part, Medium)]

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
Said = str | Part


def user(*parts: Said) -> Message:
    """`user("What is this?", Image("cat.jpg"))`"""
    return Message("user", _parts(parts))


def assistant(*parts: Said) -> Message:
    return Message("assistant", _parts(parts))


def system(*parts: Said) -> Message:
    return Message("system", _parts(parts))


@dataclass(frozen=True)
class Sample:
    """A conversation to learn from or to be asked, what else its line in a file says, and which line of which
    file that is."""

    messages: tuple[Message, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)

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

    @property
    def media(self) -> list[Medium]:
        return [medium for message in self.messages for medium in message.media]


@dataclass(frozen=True)
class Batch:
    """Tensors for a model, shapes final: placeholders are expanded, nothing is re-padded later.

    ids [B, T]; pad [B, T], True where a token is real, None if all are, or numbers of texts packed apart
    (`visibility.visible`); labels [B, T], the token
    itself where it is to be learned and -100 elsewhere; images [N, 3, H, W] in reading order, whose
    vectors take the places where ids is the image token; for models that look at tiles, N are the tiles
    of all pictures, and sizes [pictures, 2] those by which they were cut; regions [R, 5], the number of a picture
    and a box in it, x0 y0 x1 y1 from 0 to 1; instructions, the text that a Q-Former reads with each picture;
    media, by kind, what else goes with the pictures, [N, ...]; masks [R, H, W] bool, one in each
    region.
    """

    ids: Tensor
    pad: Tensor | None = None
    labels: Tensor | None = None
    images: Tensor | None = None
    sizes: Tensor | None = None
    regions: Tensor | None = None
    instructions: Batch | None = None
    masks: Tensor | None = None
    media: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: str | torch.device) -> Batch:
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        media = {kind: t.to(device) for kind, t in own.pop("media").items()}
        return Batch(**{name: t.to(device) for name, t in own.items() if t is not None}, media=media)

    @property
    def real(self) -> Tensor:
        """[B, T], True where a token is real"""
        import torch

        return torch.ones_like(self.ids, dtype=torch.bool) if self.pad is None else self.pad

    @property
    def tokens(self) -> int:
        """How many tokens are no padding"""
        return self.ids.numel() if self.pad is None else int((self.pad > 0).sum())

    def by_length(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The texts in groups of like length, so that little is spent on padding: which rows, their ids
        and their pad. One group on GPUs, where small texts cost as much as padding does, and with several
        processes, whose models' parts must be used equally often."""
        import torch

        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        pad, groups = self.real, 4 if self.ids.device.type == "cpu" and alone else 1
        lengths = pad.sum(dim=1)
        for rows in lengths.argsort().chunk(groups):
            longest = int(lengths[rows].max())
            yield rows, self.ids[rows, :longest], pad[rows, :longest]


def as_medium(file: Path | bytes) -> Medium:
    """A file as the medium that its suffix names, or, of bytes, their beginning: a sound, a video, else a picture."""
    if isinstance(file, bytes):
        return Audio(file) if file[8:12] == b"WAVE" or file[:4] in (b"fLaC", b"OggS") else Image(file)
    kind = SUFFIXES.get(file.suffix.lower(), Image)
    return kind(file)


def as_conversation(said: str | Message | Iterable[Message]) -> Conversation:
    """A question, a message or several, as a conversation."""
    if isinstance(said, str):
        return [user(said)]
    return [said] if isinstance(said, Message) else list(said)


def _parts(parts: Iterable[Said]) -> tuple[Part, ...]:
    return tuple(Text(part) if isinstance(part, str) else part for part in parts)


def _part_from_json(value: Any, folder: Path | None) -> Part:
    media: dict[str, type[Medium]] = {"image": Image, **MEDIA}
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text" and isinstance(value.get("text"), str):
        return Text(value["text"])
    if kind == "input_audio" and isinstance(value.get(kind), Mapping) and isinstance(value[kind].get("data"), str):
        return Audio(from_base64(value[kind]["data"]))
    medium = media.get(str(kind).removesuffix("_url"))
    if medium is not None:
        given = value.get(kind)
        given = given if isinstance(given, Mapping) else {"url": given}
        url = given.get("url")
        if isinstance(url, str):
            source = folder / url if folder is not None and "://" not in url and url[:5] != "data:" else url
            return Image(source, given.get("detail", "auto")) if medium is Image else medium(source)
    kinds = ("text", "input_audio", *(f"{m}_url" for m in media))
    raise InputError(f"cannot read the part {str(value)[:80]!r}{suggest(str(kind), kinds)}")
