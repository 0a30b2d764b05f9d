"""Log-mel features against the reference's extractors, of real sounds where they can be decoded, and of made ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, WhisperFeatureExtractor

import panmodal as pm
from panmodal.data.signals import SoundTransform
from panmodal.data.sounds import resample
from panmodal.data.spectra import kaldi_log_mel, mel_filters, whisper_log_mel

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")


def made() -> dict[str, torch.Tensor]:
    noise = torch.randn(48_000, generator=torch.Generator().manual_seed(0))
    at = torch.arange(48_000) / 16_000
    chirp = (2 * math.pi * (200 * at + 1000 * at**2)).sin()
    return {"noise": 0.1 * noise, "chirp": 0.5 * chirp, "both": 0.3 * chirp + 0.01 * noise, "short": chirp[:12_345]}


def real(fixtures) -> dict[str, torch.Tensor]:
    pytest.importorskip("soundfile", reason="soundfile (the extra 'audio') is not installed")
    paths = [*sorted((fixtures / "audio").glob("*.ogg"))[:3], fixtures / "audio" / "jfk.flac"]
    heard = {path.name: pm.Audio(path) for path in paths}
    return {name: resample(torch.from_numpy(a.samples), a.rate, 16_000) for name, a in heard.items()}


def check_kaldi(samples: torch.Tensor) -> None:
    ours = kaldi_log_mel(samples)
    extract = ASTFeatureExtractor(do_normalize=False, max_length=len(ours))
    theirs = extract(samples.numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def check_whisper(samples: torch.Tensor, bins: int) -> None:
    extract = WhisperFeatureExtractor(feature_size=bins)
    theirs = extract(samples.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    whole = torch.nn.functional.pad(samples, (0, 30 * 16_000 - len(samples)))
    torch.testing.assert_close(whisper_log_mel(whole, bins), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", made())
def test_as_the_reference_makes_them(name):
    check_kaldi(made()[name])
    check_whisper(made()[name], 80)
    check_whisper(made()[name], 128)


def test_of_real_sounds_too(fixtures):
    for samples in real(fixtures).values():
        check_kaldi(samples)
        check_whisper(samples, 80)


@pytest.mark.parametrize("bins", [80, 128])
def test_whisper_published_filters(bins, fixtures):
    published = np.load(fixtures / "audio" / "mel_filters.npz")[f"mel_{bins}"]
    np.testing.assert_allclose(mel_filters(400, bins, "slaney").T, published, atol=1e-7)


def test_what_imagebind_hears():
    """Three clips of two seconds; a tone is where its mel bin is, before and after the pitch changes."""
    low, high = (
        torch.sin(2 * math.pi * hertz * torch.arange(48_000) / 16_000).numpy().astype(np.float32)
        for hertz in (300, 3000)
    )
    heard = SoundTransform(bins=128, frames=204)([pm.Audio(np.concatenate([low, high]), 16_000)])
    assert heard.shape == (1, 3, 1, 128, 204)
    mel = lambda hertz: 1127 * math.log(1 + hertz / 700)  # noqa: E731
    for clip, hertz in ((0, 300), (2, 3000)):
        loudest = heard[0, clip, 0, :, 100].argmax().item()
        expected = 129 * (mel(hertz) - mel(20)) / (mel(8000) - mel(20)) - 1
        assert abs(loudest - expected) < 2
    reference = kaldi_log_mel(torch.from_numpy(low[:32_000]))  # 198 frames, then silence as 0
    torch.testing.assert_close(heard[0, 0, 0, :, :198], (reference.T + 4.268) / 9.138)
    torch.testing.assert_close(heard[0, 0, 0, :, 198:], torch.full((128, 6), 4.268 / 9.138))
