"""Videos, depth, heat and motion; sounds have tests of their own."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.clips import clip_times
from panmodal.data.pictures import ImageTransform
from panmodal.data.sample import Message, Sample, as_medium
from panmodal.data.signals import MapTransform, MotionTransform, VideoTransform


def steps(count: int = 10, side: int = 8) -> np.ndarray:
    """Frames that grow brighter"""
    return np.full((count, side, side, 3), np.arange(count)[:, None, None, None] * 20, np.uint8)


def brightness(frames: list[Pil.Image]) -> list[int]:
    return [frame.getpixel((0, 0))[0] // 20 for frame in frames]


def test_frames_at_times():
    video = pm.Video(steps(), rate=5)
    assert video.seconds == 2
    assert brightness(video.frames([0, 0.19, 0.2, 1.0, 1.99, 9])) == [0, 0, 1, 5, 9, 9]


def test_clips_lie_evenly_with_the_first_and_last_frame_of_each():
    assert clip_times(10, clips=3, frames=2, each=2) == [0, 2, 4, 6, 8, 10]
    assert clip_times(1, clips=2, frames=2, each=2) == [0, 1, 0, 1]  # shorter than a clip
    seen = VideoTransform(ImageTransform(4, 4, mean=(0, 0, 0), std=(1, 1, 1)), frames=2, clips=3)
    numbers = seen([pm.Video(steps(), rate=1)])
    assert numbers.shape == (1, 3, 3, 2, 4, 4)
    shown = (numbers[0, :, 0, :, 0, 0] * 255 / 20).round().int().tolist()
    assert shown == [[0, 2], [4, 6], [8, 9]]


@pytest.mark.parametrize(
    ("frames", "rate", "told"),
    [
        (steps(0), 5, "the video has no frames"),
        (steps()[..., :1], 5, r"\[frames, height, width, 3\] uint8"),
        (steps().astype(np.float32), 5, "uint8"),
        (steps(), None, "how many make a second"),
        (steps(), 0, "how many make a second"),
        (steps(), math.nan, "how many make a second"),
    ],
)
def test_arrays_that_are_no_video(frames, rate, told):
    with pytest.raises(pm.InputError, match=told):
        pm.Video(frames, rate).seconds  # noqa: B018


def test_video_files(tmp_path):
    av = pytest.importorskip("av", reason="av (the extra 'video') is not installed")
    with av.open(tmp_path / "a.mp4", "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for frame in steps(20, 64):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    video = pm.Video(tmp_path / "a.mp4")
    assert video.seconds == pytest.approx(4, abs=0.3)
    dark, bright = (np.asarray(frame).mean() for frame in video.frames([0, 2.2]))
    assert dark < 20 and bright > 150
    assert pm.Video((tmp_path / "a.mp4").read_bytes()) == video
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:200])
    with pytest.raises(pm.InputError, match="not a video that panmodal reads"):
        pm.Video(tmp_path / "b.mp4").frames([0])


def test_without_the_extra_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"1234")
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[video\]'"):
        pm.Video(tmp_path / "a.mp4").frames([0])
    with pytest.raises(pm.InputError, match="there is no file"):
        pm.Video(tmp_path / "none.mp4").frames([0])


def stored(picture: Pil.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_depth_is_in_metres():
    metres = np.float32([[0.5, 2.0], [0.0, 4.0]])
    forms = [
        metres,
        npy(metres),
        stored(Pil.fromarray(metres), "TIFF"),
        stored(Pil.fromarray(np.uint16(1000 * metres))),
    ]
    assert len({pm.Depth(form).key for form in forms}) == 1
    seen = MapTransform(2, 2, mean=0.5, std=2.0, disparity=1.0)([pm.Depth(metres)])
    torch.testing.assert_close(seen[0, 0], (torch.tensor([[2.0, 0.5], [0.0, 0.25]]) - 0.5) / 2)


def test_thermal_is_from_0_to_1():
    heat = np.uint8([[0, 51], [102, 255]])
    expected = np.float32([[0, 0.2], [0.4, 1]])
    grey = Pil.fromarray(heat)
    for form in (expected, stored(grey), stored(grey.convert("RGB")), stored(Pil.fromarray(np.uint16(heat) * 257))):
        np.testing.assert_allclose(pm.Thermal(form).values, expected, atol=1e-6)


def test_maps_are_resized_and_cropped_to_the_centre():
    across = np.tile(np.linspace(0, 1, 60, dtype=np.float32), (20, 1))
    seen = MapTransform(10, 10)([pm.Thermal(across)])
    assert seen.shape == (1, 1, 10, 10)
    assert seen.min() > 0.3 and seen.max() < 0.7 and seen.mean() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("medium", "told"),
    [
        (lambda: pm.Depth(np.zeros((3, 4, 5))), r"a depth map is \[height, width\] numbers, not \[3, 4, 5\]"),
        (lambda: pm.Depth(np.zeros((0, 4))), r"not \[0, 4\]"),
        (lambda: pm.Depth(np.full((2, 2), np.nan)), "not finite"),
        (lambda: pm.Depth(np.full((2, 2), -1.0)), "negative depths"),
        (lambda: pm.Depth(stored(Pil.new("RGB", (4, 4)))), "depth is 16 bits of millimetres, or floats"),
        (
            lambda: pm.Depth(stored(Pil.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)))[:99]),
            "damaged or cut off",
        ),
        (lambda: pm.Depth(npy(np.zeros((4, 4)))[:90]), "damaged .npy"),
        (lambda: pm.Depth(npy(np.array([{}], dtype=object))), "damaged .npy"),  # a pickle, which is not opened
        (lambda: pm.Thermal(np.array([["hot"]])), "numbers, not"),
        (lambda: pm.IMU(np.zeros(6)), r"motion is \[channels, samples\]"),
        (lambda: pm.IMU(stored(Pil.new("L", (4, 4)))), r"numbers in a .npy file"),
    ],
)
def test_what_is_no_such_medium(medium, told):
    with pytest.raises(pm.InputError, match=told) as error:
        medium().key  # noqa: B018
    assert "\n" not in str(error.value)


def test_motion_has_one_length():
    moved = MotionTransform(6, 20)
    assert moved([pm.IMU(np.ones((6, 20)))]).shape == (1, 6, 20)
    with pytest.raises(pm.InputError, match=r"shape \[6, 19\] and the model reads \[6, 20\]; cut or resample it"):
        moved([pm.IMU(np.ones((6, 19)))])


def test_json_and_back(tmp_path):
    samples = np.int16(1000 * np.sin(np.arange(4000)))
    parts = [
        pm.Audio(samples, 16_000), pm.Depth(np.ones((3, 4))), pm.Thermal(np.ones((3, 4))), pm.IMU(np.ones((6, 8))),
        pm.Video(b"the bytes of a file"), pm.Image(np.zeros((2, 2, 3), np.uint8)),
    ]  # fmt: skip
    sample = Sample((pm.user("what?", *parts),))
    told = sample.to_json()
    kinds = [part["type"] for part in told["messages"][0]["content"]]
    assert kinds == ["text", "input_audio", "depth_url", "thermal_url", "imu_url", "video_url", "image_url"]
    back = Sample.from_json(told)
    assert [type(medium) for medium in back.media] == [type(medium) for medium in parts]
    assert [medium.key for medium in back.media if medium.kind != "video"] == [
        medium.key for medium in parts if medium.kind != "video"
    ]
    assert back.media[4].source == b"the bytes of a file"


def test_paths_in_json(tmp_path):
    """The chat API has no sounds by path; what serves it has `audio_url`."""
    value = {"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": "a.wav"}}]}
    (message,) = [Message.from_json(value, tmp_path)]
    assert message.media[0].source == tmp_path / "a.wav"
    assert Message.from_json(value).to_json() == value
    for bad in ({"type": "input_audio"}, {"type": "input_audio", "input_audio": {"data": "@@"}}, {"type": "video_url"}):
        with pytest.raises(pm.InputError):
            Message.from_json({"role": "user", "content": [bad]})
    with pytest.raises(pm.InputError, match="not fetched"):
        pm.Video("https://example.com/a.mp4")


def test_a_file_is_what_its_name_or_its_beginning_says(tmp_path):
    names = {"a.wav": pm.Audio, "a.FLAC": pm.Audio, "a.mp4": pm.Video, "a.png": pm.Image, "a": pm.Image}
    assert {name: type(as_medium(tmp_path / name)) for name in names} == names
    wav = pm.Audio(np.zeros(9, np.int16), 8000)._file()[1]
    assert type(as_medium(wav)) is pm.Audio and type(as_medium(stored(Pil.new("L", (2, 2))))) is pm.Image


def test_a_chat_says_that_it_does_not_hear():
    from tests.families.small import small

    with pytest.raises(pm.InputError, match="text and pictures, not audio"):
        small("llava").reply([pm.user("what?", pm.Audio(np.zeros(9, np.int16), 8000))])
    with pytest.raises(pm.InputError, match="embeds pictures and texts, not Audio"):
        small("clip").embed([pm.Audio(np.zeros(9, np.int16), 8000)])
