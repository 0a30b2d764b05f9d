"""From sounds, videos, depth maps, thermal pictures and motion to the numbers that ImageBind's towers read.

Each takes media of its kind -> [N, ...] float32; those that look at several clips, [N, clips, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from panmodal.data.clips import clip_times
from panmodal.data.media import IMU, Audio, Depth, Thermal, Video
from panmodal.data.pictures import ImageTransform
from panmodal.data.sounds import cut, resample
from panmodal.data.spectra import RATE, kaldi_log_mel
from panmodal.errors import InputError


@dataclass(frozen=True)
class SoundTransform:
    """Clips of two seconds, evenly from the beginning to the end, as log-mel spectra; the paper has three, and
    AudioSet's mean and deviation."""

    bins: int
    frames: int
    clips: int = 3
    seconds: float = 2.0
    mean: float = -4.268
    std: float = 9.138

    def __call__(self, sounds: Sequence[Audio]) -> Tensor:
        """-> [N, clips, 1, bins, frames]"""
        return torch.stack([self.spectra(sound) for sound in sounds])

    def spectra(self, sound: Audio) -> Tensor:
        samples = resample(torch.from_numpy(sound.samples), sound.rate, RATE)
        mel = kaldi_log_mel(cut(samples, round(self.seconds * RATE), self.clips), self.bins).transpose(1, 2)
        mel = F.pad(mel, (0, self.frames - mel.shape[-1]))  # cuts off what is too long, too
        return ((mel - self.mean) / self.std)[:, None]


@dataclass(frozen=True)
class VideoTransform:
    """Clips, evenly from the beginning to the end, of a few frames each, as pictures are seen."""

    picture: ImageTransform
    frames: int
    clips: int = 5
    seconds: float = 2.0

    def __call__(self, videos: Sequence[Video]) -> Tensor:
        """-> [N, clips, 3, frames, height, width]"""
        return torch.stack([self.seen(video) for video in videos])

    def seen(self, video: Video) -> Tensor:
        times = clip_times(video.seconds, self.clips, self.frames, self.seconds)
        seen = self.picture(video.frames(times))  # [clips * frames, 3, height, width]
        return seen.reshape(self.clips, self.frames, *seen.shape[1:]).transpose(1, 2)


@dataclass(frozen=True)
class MapTransform:
    """One value a pixel: the shorter side resized (bicubic), the centre cropped, normalised.

    With `disparity`, values are depths, and seen as `disparity` / depth (Girdhar et al., 2022), which for a camera
    is its focal length in pixels times the distance between its lenses in metres; 0 where nothing was measured.
    """

    height: int
    width: int
    mean: float = 0.0
    std: float = 1.0
    disparity: float | None = None

    def __call__(self, maps: Sequence[Depth] | Sequence[Thermal]) -> Tensor:
        """-> [N, 1, height, width]"""
        return torch.stack([self.seen(torch.from_numpy(m.values)) for m in maps])

    def seen(self, values: Tensor) -> Tensor:
        if self.disparity is not None:
            values = torch.where(values > 0, self.disparity / values.clamp(min=0.01), 0.0)
        factor = max(self.height / values.shape[0], self.width / values.shape[1])
        size = [max(side, round(have * factor)) for side, have in zip(self.size, values.shape, strict=True)]
        if list(values.shape) != size:
            values = F.interpolate(values[None, None], size, mode="bicubic", antialias=True)[0, 0]
        top, left = (size[0] - self.height) // 2, (size[1] - self.width) // 2
        values = values[top : top + self.height, left : left + self.width]
        return ((values - self.mean) / self.std)[None]

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class MotionTransform:
    """Readings of one length, as they are."""

    channels: int
    samples: int

    def __call__(self, motions: Sequence[IMU]) -> Tensor:
        """-> [N, channels, samples]"""
        for motion in motions:
            if motion.values.shape != (self.channels, self.samples):
                raise InputError(
                    f"{motion.name} has motion of shape {list(motion.values.shape)} and the model reads "
                    f"{[self.channels, self.samples]}; cut or resample it"
                )
        return torch.stack([torch.from_numpy(motion.values) for motion in motions])
