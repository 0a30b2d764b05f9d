"""Log-mel spectra of sounds, as published models have learned from them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

RATE = 16_000
FRAME, HOP = 400, 160  # 25 and 10 milliseconds


def kaldi_log_mel(samples: Tensor, bins: int = 128) -> Tensor:
    """[..., samples] at 16 kHz -> [..., frames, bins], as Kaldi's filter banks (AST, ImageBind).

    Frames lie whole within the sound, each without its mean, emphasised, under a Hann window.
    """
    frames = samples.double().unfold(-1, FRAME, HOP)  # quiet bins beside loud ones need the digits
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(FRAME, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft((frames - 0.97 * before) * window, 512).abs() ** 2
    mel: Tensor = power @ mel_filters(512, bins, "kaldi", low=20.0).double()
    return mel.clamp(min=torch.finfo(torch.float32).eps).log().float()


def whisper_log_mel(samples: Tensor, bins: int = 80) -> Tensor:
    """[..., samples] at 16 kHz -> [..., bins, frames], as Whisper's (Radford et al., 2022): within 80 dB of
    the loudest, from about -1 to 1."""
    spectrum = torch.stft(samples, FRAME, HOP, window=torch.hann_window(FRAME), return_complex=True)
    power = spectrum[..., :-1].abs() ** 2
    mel = (mel_filters(FRAME, bins, "slaney").T @ power).clamp(min=1e-10).log10()
    return (torch.maximum(mel, mel.amax(dim=(-2, -1), keepdim=True) - 8) + 4) / 4


@lru_cache(maxsize=16)
def mel_filters(size: int, bins: int, scale: Literal["kaldi", "slaney"], low: float = 0.0) -> Tensor:
    """Triangles, evenly spaced in mel from `low` Hz to 8 kHz -> [size / 2 + 1, bins].

    Kaldi's are triangles in mel, Slaney's in Hz, and these of equal area.
    """
    frequencies = torch.linspace(0, RATE / 2, size // 2 + 1, dtype=torch.float64)
    lowest, highest = _mel(torch.tensor([low, RATE / 2], dtype=torch.float64), scale).tolist()
    corners = torch.linspace(lowest, highest, bins + 2, dtype=torch.float64)
    at = _mel(frequencies, scale) if scale == "kaldi" else frequencies
    corners = corners if scale == "kaldi" else _hertz(corners)
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (at[:, None] - left) / (peak - left), (right - at[:, None]) / (right - peak)
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (filters if scale == "kaldi" else filters * 2 / (right - left)).float()


def _mel(hertz: Tensor, scale: str) -> Tensor:
    if scale == "kaldi":
        return 1127 * (1 + hertz / 700).log()
    return torch.where(hertz < 1000, 0.015 * hertz, 15 + 27 * (hertz.clamp(min=1000) / 1000).log() / math.log(6.4))


def _hertz(mel: Tensor) -> Tensor:
    """Slaney's scale back: even below 1 kHz, above it 27 mels for every factor of 6.4."""
    return torch.where(mel < 15, mel / 0.015, 1000 * 6.4 ** ((mel - 15) / 27))
