from __future__ import annotations

import io
import math
import struct
import wave

import numpy as np
import pytest
import torch

import panmodal as pm
from panmodal.data import sounds
from panmodal.data.sounds import cut, decode, resample, to_wav

RATE = 16_000


def tone(hertz: float, rate: int = RATE, seconds: float = 1.0) -> torch.Tensor:
    at = torch.arange(round(rate * seconds), dtype=torch.float64) / rate
    return (2 * math.pi * hertz * at).sin().float()


def wav(samples: np.ndarray, width: int, rate: int = RATE) -> bytes:
    """samples [samples, channels], whole numbers of `width` bytes"""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        whole = samples.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :width]
        file.writeframes(((whole + 128) if width == 1 else whole).astype(np.uint8).tobytes())
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_every_width_become_floats(width):
    most = 2 ** (8 * width - 1)
    channel = np.array([0, most // 2, -most // 2, most - 1, -most])
    samples, rate = decode(wav(channel[:, None], width))
    assert rate == RATE and samples.dtype == np.float32
    np.testing.assert_allclose(samples, channel / most, atol=1e-7)


def test_channels_are_averaged():
    both = np.array([[1000, 3000], [-2000, 0]])
    np.testing.assert_allclose(decode(wav(both, 2))[0], np.array([2000, -1000]) / 32768, atol=1e-7)
    np.testing.assert_allclose(decode(np.float32([[1, 0.5], [0, 0.5]]), RATE)[0], [0.5, 0.5])


def test_what_a_sound_can_be_made_from(tmp_path):
    samples = np.int16(20000 * tone(440).numpy())
    (tmp_path / "a.wav").write_bytes(to_wav(samples, RATE))
    forms = [pm.Audio(samples, RATE), pm.Audio(tmp_path / "a.wav"), pm.Audio((tmp_path / "a.wav").read_bytes())]
    forms.append(pm.Audio(samples.astype(np.float32) / 32768, RATE))
    assert len({form.key for form in forms}) == 1
    assert forms[1].seconds == 1.0 and forms[1] == forms[2] and forms[1] != pm.Audio(samples, 8000)


def header(
    rate: int = RATE, channels: int = 1, bits: int = 16, kind: int = 1, promised: int = 8, held: int = 8
) -> bytes:
    about = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    data = b"data" + struct.pack("<I", promised) + b"\0" * held
    return b"RIFF" + struct.pack("<I", 36 + promised) + b"WAVE" + b"fmt " + struct.pack("<I", 16) + about + data


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (header(rate=0), "x.wav has a sample rate of 0; panmodal reads 1,000 to 384,000"),
        (header(promised=0, held=0), "has no samples"),
        (header(promised=4_000_000_000), "lasts 125,000 seconds, over the limit of 1,800"),
        (header(promised=10_000_000), "promises 10,000,000 bytes of samples and holds 8; get a whole copy"),
        (header(channels=0), "damaged WAV file"),
        (header(channels=100, promised=400, held=400), "100 channels; panmodal reads 1 to 32"),
        (header()[:30], "damaged WAV file|cut off"),
        (b"", "x.wav is empty"),
        (b"hello, I am text", "extra|not a sound"),
    ],
)  # fmt: skip
def test_what_is_no_sound(data, told):
    with pytest.raises(pm.InputError, match=told) as error:
        decode(data, name="x.wav")
    assert "\n" not in str(error.value)


def test_size_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(sounds, "MAX_BYTES", 10)
    with pytest.raises(pm.InputError, match="over the limit of 10"):
        decode(header())


@pytest.mark.parametrize(
    ("samples", "rate", "told"),
    [
        (np.zeros(8, np.float32), None, "needs its rate"),
        (np.zeros(8, np.float32), 0, "sample rate of 0"),
        (np.zeros(0, np.float32), RATE, "has no samples"),
        (np.float32([0, math.nan]), RATE, r"not finite \(NaN or infinite\)"),
        (np.float32([0, math.inf]), RATE, "not finite"),
        (np.zeros((2, 2, 2), np.float32), RATE, r"\[samples\] or \[channels, samples\]"),
        (np.zeros(8, np.int64), RATE, "of floats or int16"),
        (np.zeros((100, 8), np.float32), RATE, "100 channels"),
    ],
)
def test_arrays_that_are_no_sound(samples, rate, told):
    with pytest.raises(pm.InputError, match=told):
        pm.Audio(samples, rate).key  # noqa: B018


def test_a_file_has_a_rate_of_its_own(tmp_path):
    with pytest.raises(pm.InputError, match="a rate of its own"):
        pm.Audio(header(), 8000).key  # noqa: B018
    with pytest.raises(pm.InputError, match="there is no file"):
        pm.Audio(tmp_path / "none.wav").key  # noqa: B018


@pytest.mark.parametrize(
    ("rate", "to"), [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 16000), (16000, 44100)]
)
def test_tones_stay_what_they_are(rate, to):
    """In the middle: at the ends a sound begins and stops, which no filter can follow."""
    for hertz in (100, 1000, 3000):
        resampled = resample(tone(hertz, rate), rate, to)
        assert len(resampled) == to
        middle = slice(to // 4, -to // 4)
        torch.testing.assert_close(resampled[middle], tone(hertz, to)[middle], rtol=0, atol=1e-4)


def test_tones_too_high_for_the_rate_are_silenced():
    """And not heard as lower ones (aliasing)."""
    for hertz in (8600, 12_000, 20_000):
        assert resample(tone(hertz, 44100), 44100, RATE)[4000:-4000].abs().max() < 1e-4


def test_rates_without_a_common_factor():
    resampled = resample(tone(440, 44101, 0.2), 44101, RATE)
    torch.testing.assert_close(resampled[800:-800], tone(440, RATE, 0.2)[800 : len(resampled) - 800], rtol=0, atol=1e-4)
    constant = resample(torch.ones(3000), 44101, RATE)
    torch.testing.assert_close(constant[100:-100], torch.ones(len(constant) - 200))


def test_clips_lie_evenly_and_short_sounds_are_followed_by_silence():
    assert cut(torch.arange(10.0), 4, 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert cut(torch.ones(2), 4, 2).tolist() == [[1, 1, 0, 0]] * 2


def test_files_that_need_the_extra(fixtures):
    """FLAC and OGG; the sentence is 11 seconds long."""
    pytest.importorskip("soundfile", reason="soundfile (the extra 'audio') is not installed")
    sentence = pm.Audio(fixtures / "audio" / "jfk.flac")
    assert 10.9 < sentence.seconds < 11.1 and 0.1 < abs(sentence.samples).max() <= 1
    for path in sorted((fixtures / "audio").glob("*.ogg")):
        assert 4.9 < pm.Audio(path).seconds < 5.1
    with pytest.raises(pm.InputError, match="not a sound that panmodal reads"):
        decode(b"fLaC, but no more than that")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[audio\]'"):
        decode(b"fLaC" + bytes(100))
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[audio\]'"):
        decode(header(kind=3, bits=32))  # a WAV of floats, too
