"""Media beside pictures, as parts of a message: sounds, videos, depth maps, thermal pictures and motion.

Each is made of a path, a `data:` URL, the bytes of a file, or an array, and decoded when first looked at.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from panmodal.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from PIL import Image as Pil

    Array = np.ndarray[Any, Any]
    File = str | os.PathLike[str] | bytes


class Medium(ABC):
    """What all media share. `kind` is the modality; a path, where there is one, is the medium's name."""

    kind: ClassVar[str]

    def __init__(self, source: Any) -> None:
        if isinstance(source, str) and source.startswith(("http://", "https://")):
            raise InputError(f"remote files are not fetched: download {source} and pass its path")
        if isinstance(source, str) and source.startswith("data:"):
            source = _from_data_url(source)
        self.source = source

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def name(self) -> str:
        """The path, or what the medium was made from."""
        if isinstance(self.source, str | os.PathLike):
            return os.fspath(self.source)
        return f"<{type(self.source).__name__}>"

    @abstractmethod
    def check(self) -> None:
        """Raises InputError if the medium cannot be decoded."""

    @property
    @abstractmethod
    def key(self) -> str:
        """A digest of what is seen or heard: two media of a kind with one key are the same."""

    def to_json(self) -> dict[str, Any]:
        """`{"type": "image_url", "image_url": {"url": …}}`, and so for each kind; what has no path is written out."""
        url = self.name if isinstance(self.source, str | os.PathLike) else self.data_url()
        return {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": url}}

    def data_url(self) -> str:
        """The medium itself, written out as a URL."""
        kind, content = self._file()
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    @abstractmethod
    def _file(self) -> tuple[str, bytes]:
        """The type and bytes of a file that holds the medium."""


class Audio(Medium):
    """A sound: a WAV file or, with the extra `audio`, any that libsndfile reads (FLAC, OGG, MP3, …); or an array
    [samples] or [channels, samples], of floats from -1 to 1 or of int16, and its rate in samples a second."""

    kind = "audio"

    def __init__(self, source: File | Array, rate: int | None = None) -> None:
        super().__init__(source)
        self._rate = rate

    @cached_property
    def _decoded(self) -> tuple[Array, int]:
        from panmodal.data.sounds import decode

        return decode(self.source, self._rate, self.name)

    def check(self) -> None:
        self._decoded  # noqa: B018

    @property
    def samples(self) -> Array:
        """One channel, [samples] float32: the mean of those that there are."""
        return self._decoded[0]

    @property
    def rate(self) -> int:
        return self._decoded[1]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @cached_property
    def key(self) -> str:
        return _digest(f"audio {self.rate}", self.samples)

    def to_json(self) -> dict[str, Any]:
        """As the chat API has sounds, `input_audio`; a path as `audio_url`."""
        if isinstance(self.source, str | os.PathLike):
            return super().to_json()
        data = base64.b64encode(self._file()[1]).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}

    def _file(self) -> tuple[str, bytes]:
        from panmodal.data.sounds import to_wav

        return "audio/wav", to_wav(self.samples, self.rate)


class Video(Medium):
    """A video: a file that FFmpeg reads (with the extra `video`), or frames [frames, height, width, 3] uint8 and how
    many of them make a second. Frames are decoded when asked for."""

    kind = "video"

    def __init__(self, source: File | Array, rate: float | None = None) -> None:
        super().__init__(source)
        self._rate = rate

    @cached_property
    def _opened(self) -> Any:
        from panmodal.data.clips import open_video

        return open_video(self.source, self._rate, self.name)

    def check(self) -> None:
        self._opened  # noqa: B018

    @property
    def seconds(self) -> float:
        return float(self._opened.seconds)

    def frames(self, times: Sequence[float]) -> list[Pil.Image]:
        """The frames shown at some times, in seconds from the beginning, which must not descend."""
        frames: list[Pil.Image] = self._opened.frames(times)
        return frames

    @cached_property
    def key(self) -> str:
        self.check()
        if isinstance(self.source, bytes):
            return _digest("video", self.source)
        if isinstance(self.source, str | os.PathLike):
            return _digest("video", Path(self.source).read_bytes())
        return _digest(f"video {self._rate} {self.source.shape}", self.source)

    def _file(self) -> tuple[str, bytes]:
        if isinstance(self.source, bytes):
            return "video/mp4", self.source
        raise InputError("frames are not written out as a video; save them as a file and pass its path")


class _Array(Medium):
    """A medium that is an array of numbers: `values`, decoded."""

    @cached_property
    def values(self) -> Array:
        from panmodal.data.arrays import DECODERS

        return DECODERS[self.kind](self.source, self.name)

    def check(self) -> None:
        self.values  # noqa: B018

    @cached_property
    def key(self) -> str:
        return _digest(f"{self.kind} {self.values.shape}", self.values)

    def _file(self) -> tuple[str, bytes]:
        import numpy as np

        out = io.BytesIO()
        np.save(out, self.values)
        return "application/x-npy", out.getvalue()


class Depth(_Array):
    """A depth map: metres as [height, width] numbers in an array, a `.npy` file or a TIFF of floats, or millimetres
    in a picture of 16 bits. 0 is where nothing was measured."""

    kind = "depth"


class Thermal(_Array):
    """A thermal picture: [height, width] numbers from 0 to 1 in an array or a `.npy` file, or a grey picture."""

    kind = "thermal"


class IMU(_Array):
    """Motion: readings of an inertial measurement unit, [channels, samples], three of acceleration and three of
    rotation, in an array or a `.npy` file."""

    kind = "imu"


NAMES = {
    "image": "pictures",
    "audio": "sounds",
    "video": "videos",
    "depth": "depth maps",
    "thermal": "thermal pictures",
}


def plural(kind: str) -> str:
    """What media of a kind are called."""
    return NAMES.get(kind, kind)


MEDIA: dict[str, type[Medium]] = {medium.kind: medium for medium in (Audio, Video, Depth, Thermal, IMU)}
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif"}
SUFFIXES = {
    **dict.fromkeys((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"), Audio),
    **dict.fromkeys((".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi"), Video),
}


def media_files(path: Path, takes: Sequence[str] = ("image",)) -> list[Path]:
    """A file itself, or all files in a folder of the kinds that a model takes. Raises InputError if there is none."""
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"there is no file {path}")
        return [path]
    wanted = PICTURE_SUFFIXES | {suffix for suffix, medium in SUFFIXES.items() if medium.kind in takes}
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted and p.is_file())
    if not found:
        raise InputError(f"the folder {path} has no {'pictures' if len(takes) == 1 else 'media'} in it")
    return found


def _digest(what: str, content: Array | bytes) -> str:
    return hashlib.sha256(what.encode() + (content if isinstance(content, bytes) else content.tobytes())).hexdigest()


def _from_data_url(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError(f"a data URL must be base64 ('data:image/png;base64,…'), not {head[:40]!r}")
    return from_base64(data)


def from_base64(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InputError(f"a data URL with broken base64: {error}") from None
