"""Decoding sounds safely to one channel of float32, resampling, and cutting clips out of them."""

from __future__ import annotations

import io
import math
import os
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panmodal.data.pictures import read_file
from panmodal.errors import InputError

if TYPE_CHECKING:
    from panmodal.data.media import Array, File

MAX_BYTES = 512 * 2**20
MAX_SECONDS = 1800
MAX_CHANNELS = 32
RATES = (1000, 384_000)

Samples = NDArray[np.float32]


def decode(source: File | Array, rate: int | None = None, name: str = "sound") -> tuple[Samples, int]:
    """Decodes a sound -> [samples] float32, the mean of its channels, and its rate. `rate` is for arrays alone.

    Raises InputError for what is no sound, is cut off, empty or not finite, or is over a limit; size is
    checked before any sample is decoded.
    """
    if isinstance(source, np.ndarray):
        if rate is None:
            raise InputError("an array of samples needs its rate: Audio(samples, rate=16000)")
        return _from_array(source, rate, name)
    if rate is not None:
        raise InputError(f"{name} has a rate of its own; give one for arrays alone")
    data = read_file(Path(source), MAX_BYTES) if isinstance(source, str | os.PathLike) else source
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} has {len(data):,} bytes, over the limit of {MAX_BYTES:,}")
    if not data:
        raise InputError(f"{name} is empty")
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        read = _read_wav(data, name)
        if read is not None:
            return _mixed(read[0], read[1], name)
    return _mixed(*_read_any(data, name), name)


def _from_array(array: Array, rate: int, name: str) -> tuple[Samples, int]:
    if array.ndim not in (1, 2) or not (np.issubdtype(array.dtype, np.floating) or array.dtype == np.int16):
        raise InputError(
            f"an array of samples is [samples] or [channels, samples], of floats or int16, not "
            f"{list(array.shape)} {array.dtype}"
        )
    channels = array[None] if array.ndim == 1 else array
    _check(rate, channels.shape[1], channels.shape[0], name)
    scale = 32768 if array.dtype == np.int16 else 1
    return _mixed(channels.T.astype(np.float32) / np.float32(scale), rate, name)


def _check(rate: int, samples: int, channels: int, name: str) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{name} has a sample rate of {rate}; panmodal reads {RATES[0]:,} to {RATES[1]:,} a second")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{name} has {channels} channels; panmodal reads 1 to {MAX_CHANNELS}")
    if samples < 1:
        raise InputError(f"{name} has no samples")
    if samples > MAX_SECONDS * rate:
        raise InputError(f"{name} lasts {samples / rate:,.0f} seconds, over the limit of {MAX_SECONDS:,}; cut it")


def _mixed(samples: NDArray[Any], rate: int, name: str) -> tuple[Samples, int]:
    """samples [samples, channels] -> [samples]"""
    mixed = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mixed).all():
        raise InputError(f"{name} has samples that are not finite (NaN or infinite)")
    return mixed, rate


def _read_wav(data: bytes, name: str) -> tuple[NDArray[Any], int] | None:
    """Whole-number samples by the standard library; None for a WAV that holds something else."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width, count = (
                file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()
            )  # fmt: skip
            _check(rate, count, channels, name)
            if width > 4:
                return None
            content = file.readframes(count)
    except wave.Error as error:
        if "unknown format" in str(error):
            return None
        raise InputError(f"{name} is a damaged WAV file ({error})") from None
    except EOFError:
        raise InputError(f"{name} is a WAV file that is cut off") from None
    if len(content) < count * channels * width:
        raise InputError(
            f"{name} promises {count * channels * width:,} bytes of samples and holds {len(content):,}; "
            "get a whole copy"
        )
    if width == 1:
        whole = np.frombuffer(content, np.uint8).astype(np.float32) - 128
    else:  # of three bytes, too: as the upper part of four
        padded = np.zeros((count * channels, 4), np.uint8)
        padded[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
        whole = padded.view("<i4")[:, 0].astype(np.float32) / 2.0 ** (32 - 8 * width)
    return (whole / 2.0 ** (8 * width - 1)).reshape(count, channels), rate


def _read_any(data: bytes, name: str) -> tuple[NDArray[Any], int]:
    try:
        import soundfile
    except ImportError:
        raise InputError(
            f"{name} is not a plain WAV file; other sounds need the extra: pip install 'panmodal[audio]'"
        ) from None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check(file.samplerate, file.frames, file.channels, name)
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.SoundFileError as error:
        raise InputError(f"{name} is not a sound that panmodal reads ({error})") from None


def to_wav(samples: NDArray[Any], rate: int) -> bytes:
    """One channel, float from -1 to 1 or int16 -> the bytes of a WAV file of 16 bits."""
    if samples.dtype != np.int16:
        samples = np.clip(np.floor(samples * 32768 + 0.5), -32768, 32767).astype(np.int16)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


ZEROS = 32  # of the sinc, on either side
ROLL_OFF = 0.96  # of the lower of the two rates, from where tones fade
SHARPNESS = 10.0  # of the Kaiser window: what would alias is 100 dB down
TOGETHER = 2**12  # output samples at a time


def resample(samples: Tensor, rate: int, to: int) -> Tensor:
    """[samples] at one rate -> at another, by a windowed sinc (Smith, "Digital audio resampling").

    Output sample n lies at input position n * rate / to; the fractions repeat, so that each needs its
    weights but once.
    """
    if rate == to:
        return samples
    common = math.gcd(rate, to)
    step, phases = rate // common, to // common
    count = -(-len(samples) * phases // step)
    cutoff = ROLL_OFF * min(1.0, to / rate)
    reach = math.ceil(ZEROS / cutoff)
    starts = torch.arange(min(phases, count), dtype=torch.long) * step
    taps = torch.arange(-reach, reach + 1)
    away = taps - (starts % phases)[:, None].double() / phases  # [phases, taps], in input samples
    window = torch.special.i0(SHARPNESS * (1 - (away / (reach + 1)) ** 2).clamp(min=0).sqrt())
    weights = cutoff * torch.sinc(cutoff * away) * window
    weights = (weights / weights.sum(dim=1, keepdim=True)).float()  # so that silence and a constant stay
    around = torch.nn.functional.pad(samples, (reach, reach)).unfold(0, len(taps), 1)  # [samples, taps], a view
    pieces = []
    for first in range(0, count, TOGETHER):
        n = torch.arange(first, min(first + TOGETHER, count))
        pieces.append((around[n * step // phases] * weights[n % phases]).sum(dim=1))
    return torch.cat(pieces)


def cut(samples: Tensor, length: int, clips: int) -> Tensor:
    """[samples] -> [clips, length], evenly from the beginning to the end; short sounds are followed by silence."""
    if len(samples) < length:
        samples = torch.nn.functional.pad(samples, (0, length - len(samples)))
    starts = torch.linspace(0, len(samples) - length, clips).long().tolist()
    return torch.stack([samples[s : s + length] for s in starts])
