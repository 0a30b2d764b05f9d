"""Opening videos safely, and the times of the frames that models look at."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image as Pil

from panmodal.data.pictures import MAX_PIXELS
from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.media import Array, File

MAX_BYTES = 2 * 2**30
MAX_SECONDS = 3600
MAX_FRAMES = 1_000_000
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpeg,mpegts,ogg"  # none that names other files, as lists do


class Opened(Protocol):
    """A video whose frames can be had. `seconds` is how long it lasts."""

    seconds: float

    def frames(self, times: Sequence[float]) -> list[Pil.Image]:
        """The frames shown at times that do not descend."""


def open_video(source: File | Array, rate: float | None, name: str) -> Opened:
    """Raises InputError for what is no video, has no frames, or is over a limit, before a frame is decoded."""
    if isinstance(source, np.ndarray):
        return Frames(source, rate)
    if rate is not None:
        raise InputError(f"{name} has a frame rate of its own; give one for arrays alone")
    return VideoFile(source, name)


class Frames:
    """Frames in memory, [frames, height, width, 3] uint8."""

    def __init__(self, array: Array, rate: float | None) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise InputError(
                f"an array video is [frames, height, width, 3] uint8, not {list(array.shape)} {array.dtype}"
            )
        if not len(array):
            raise InputError("the video has no frames")
        if rate is None or not 0 < rate < math.inf:
            raise InputError(f"an array of frames needs how many make a second, and that is {rate}")
        self.array, self.rate = array, rate
        self.seconds = len(array) / rate

    def frames(self, times: Sequence[float]) -> list[Pil.Image]:
        last = len(self.array) - 1
        return [Pil.fromarray(self.array[min(int(t * self.rate + 1e-6), last)]) for t in times]


class VideoFile:
    """A file that FFmpeg reads, through PyAV."""

    def __init__(self, source: File, name: str) -> None:
        self.source, self.name = source, name
        self._check_size()
        with self._open() as container:
            stream = self._stream(container)
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise InputError(f"{name} has frames of more than {MAX_PIXELS:,} pixels")
            if stream.frames > MAX_FRAMES:
                raise InputError(f"{name} has {stream.frames:,} frames; the limit is {MAX_FRAMES:,}")
            self.seconds = self._length(container, stream)
        if self.seconds > MAX_SECONDS:
            raise InputError(f"{name} lasts {self.seconds:,.0f} seconds, over the limit of {MAX_SECONDS:,}; cut it")

    def frames(self, times: Sequence[float]) -> list[Pil.Image]:
        found: list[Pil.Image] = []
        shown = None
        with self._open() as container:
            for frame in container.decode(self._stream(container)):
                while shown is not None and len(found) < len(times) and frame.time > times[len(found)] + 1e-6:
                    found.append(shown.to_image())
                if len(found) == len(times):
                    break
                shown = frame
        if shown is None:
            raise InputError(f"{self.name} has no frames")
        return found + [shown.to_image()] * (len(times) - len(found))

    def _check_size(self) -> None:
        if isinstance(self.source, bytes):
            size = len(self.source)
        else:
            path = Path(self.source)
            if not path.is_file():
                raise InputError(f"there is no file {path}")
            size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{self.name} has {size:,} bytes, over the limit of {MAX_BYTES:,}")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            import av
        except ImportError:
            raise InputError(
                f"{self.name} cannot be read: videos need the extra: pip install 'panmodal[video]'"
            ) from None
        file = io.BytesIO(self.source) if isinstance(self.source, bytes) else os.fspath(self.source)
        try:
            with av.open(file, options={"format_whitelist": FORMATS}) as container:
                yield container
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.name} is not a video that panmodal reads, or is damaged ({error})") from None

    def _stream(self, container: Any) -> Any:
        if not container.streams.video:
            raise InputError(f"{self.name} has no frames: there is no video in it")
        return container.streams.video[0]

    def _length(self, container: Any, stream: Any) -> float:
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        if container.duration is not None:
            return float(container.duration / 1e6)
        raise InputError(f"{self.name} does not say how long it lasts; write it anew, as with ffmpeg -c copy")


def clip_times(seconds: float, clips: int, frames: int, each: float) -> list[float]:
    """When the frames of some clips are shown, evenly: clips of `each` seconds from the beginning to the end,
    and in each its frames, the first and the last among them."""
    last = max(seconds - each, 0.0)
    starts = np.linspace(0, last, clips)
    within = np.linspace(0, min(each, seconds), frames)
    return [float(s + w) for s in starts for w in within]
