"""What scenes sound like, measured in the sound itself."""

from __future__ import annotations

import hashlib

import numpy as np

from panmodal.playground import SPLITS, depth, make_scene, masks, scene_of, single_object_scene, sound
from panmodal.playground.sound import PITCHES, RATE, SLOT, VOICES, left_to_right
from panmodal.playground.world import PAIRS


def slots(samples: np.ndarray) -> np.ndarray:
    return samples[: 6 * SLOT].reshape(6, SLOT).astype(float)


def pitch(samples: np.ndarray) -> float:
    """The lowest strong frequency, in Hz"""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * len(samples)))
    strong = np.flatnonzero(power > 0.5 * power.max())
    lowest = strong[: np.argmax(np.diff(strong, append=10**9) > 1) + 1]  # one peak
    return float(lowest[power[lowest].argmax()] * RATE / (8 * len(samples)))


def beats(samples: np.ndarray) -> int:
    loud = np.abs(samples[:5280]).reshape(-1, 48).max(axis=1) > 0.2 * np.abs(samples).max()  # every 3 ms
    return int((np.diff(loud.astype(int), prepend=0) == 1).sum())


def test_a_seed_gives_the_same_samples_everywhere():
    """If this fails, every model that hears must be trained anew."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for seed in range(20):
            digest.update(sound(make_scene(seed, split)).tobytes())
            digest.update(depth(make_scene(seed, split)).tobytes())
    assert digest.hexdigest() == "6106557d1a5f75818f195027bfa32cbd0fbdf05892e7ec1a84b22444d9af3534"


def test_colour_is_pitch_and_shape_is_rhythm_and_timbre():
    for colour, shape in PAIRS:
        note = slots(sound(single_object_scene(3, colour, shape)))
        assert abs(pitch(note[0]) - PITCHES[colour]) < 0.05 * PITCHES[colour], (colour, shape)
        assert not note[1:].any()
        if PITCHES[colour] > 500:  # whose waves are shorter than a beat's rise
            assert beats(note[0]) == VOICES[shape][0], (colour, shape)
    told = {sound(single_object_scene(3, *pair)).tobytes() for pair in PAIRS}
    assert len(told) == len(PAIRS)


def test_objects_sound_in_turn_from_left_to_right():
    for seed in range(60):
        scene = make_scene(seed)
        things = left_to_right(scene)
        assert [o.x for o in things] == sorted(o.x for o in scene.objects)
        heard = slots(sound(scene))
        assert heard.any(axis=1).tolist() == [i < len(things) for i in range(6)]
        for thing, note in zip(things, heard, strict=False):
            assert abs(pitch(note) - PITCHES[thing.colour]) < 0.05 * PITCHES[thing.colour]
            assert (np.abs(note).max() > 16_000) == (thing.size == "large")


def test_large_objects_are_near():
    scene = make_scene(5)
    away = depth(scene)
    shown = masks(scene)
    assert (away[~shown.any(0)] == 6000).all()
    for thing, mask in zip(scene.objects, shown, strict=True):
        assert (away[mask] == 28_000 // thing.radius).all()


def test_scenes_of_given_pairs():
    scene = scene_of(4, [("red", "circle"), ("blue", "star")])
    assert {(o.colour, o.shape) for o in scene.objects} == {("red", "circle"), ("blue", "star")}
    assert scene_of(4, [("red", "circle")]) == single_object_scene(4, "red", "circle")
