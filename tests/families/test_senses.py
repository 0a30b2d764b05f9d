"""Language models over several kinds of media: pictures, videos and sounds among the words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import panmodal as pm
from panmodal.connectors import CONNECTORS
from panmodal.data.sample import Sample, assistant, user
from panmodal.playground import sound
from panmodal.playground.speech import sound_sample
from panmodal.playground.world import single_object_scene
from panmodal.training import Stage, train
from panmodal.training.check import check
from panmodal.training.sheet import sheet
from panmodal.training.stages import OBJECTIVES
from tests.families.small import CONNECTOR_OPTIONS, small
from tests.families.test_every_family import media, scene_picture

SQUARE = ("pixel_shuffle", "abstractor")  # need a square grid of patches, and spectra are none


def heard(seed: int) -> list:
    """A sound, a picture and a video"""
    audio, video, *_ = media(seed)
    return [audio, scene_picture(seed), video]


def test_media_stand_among_the_words_in_their_order():
    family = small("senses")
    encoded = family.processor.encode([user("before", *heard(0), "after"), assistant("yes")])
    assert encoded.vectors == [3 * 5, 16, 2 * 16]  # three clips, one picture, two frames
    assert [m.kind for m in encoded.media] == ["audio", "image", "video"]
    said = family.processor.tokenizer.decode([i for i, on in zip(encoded.ids, encoded.learned, strict=True) if on])
    assert said == "yes"
    batch = family.processor.batch([encoded])
    x = family.vectors(batch.ids, family._look(encoded.shown))
    with torch.no_grad():
        torch.testing.assert_close(family.language.decode(x, None), family.model.read(batch), rtol=0, atol=1e-5)
        places = (batch.ids[0] == family.model.tokens["video"]).nonzero()[:, 0]
        frames = family.model.encode("image", batch.media["video"][0, :, :, 0])  # a frame is seen as a picture
        torch.testing.assert_close(x[0, places], frames.flatten(0, 1), rtol=0, atol=1e-5)


def test_a_frame_or_sound_changes_the_answer_and_is_encoded_once(monkeypatch):
    family, seen = small("senses", std=0.3), []
    encode = family.encode_others
    monkeypatch.setattr(family, "encode_others", lambda kind, media: seen.append(kind) or encode(kind, media))
    asked = [[user(*heard(seed), "what is it?")] for seed in (0, 3)]
    answers = [family.reply(one, max_tokens=12) for one in asked]
    assert answers[0] != answers[1] and seen == ["audio", "video"] * 2
    assert family.reply([*asked[1], answers[1], user("and?")], max_tokens=4).text is not None and len(seen) == 4
    family.forget()
    assert family.reply_all(asked, max_tokens=12) == answers


@pytest.mark.parametrize("parts", [("vision", "audio"), ("audio",), ("vision",)])
def test_it_saves_and_loads(parts, tmp_path):
    family = pm.compose(
        **{part: small("imagebind") for part in parts},
        language=small("llama"),
        connector="linear",
        layer=-1,
        frames=2 * ("vision" in parts),
    )
    family.save(tmp_path)
    again = pm.load(tmp_path)
    shown = [m for m in heard(0) if m.kind in family.takes]
    assert len(shown) == len(family.takes) and family.takes == again.takes
    asked = [user(*shown, "what?")]
    assert again.reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)
    for ours, theirs in zip(family.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", CONNECTORS)
def test_any_connector_brings_sounds_to_the_words(kind):
    spec = {"kind": kind, **CONNECTOR_OPTIONS.get(kind, {})}
    make = lambda: pm.compose(audio=small("imagebind"), connector=spec, language=small("llama"))  # noqa: E731
    if kind in SQUARE:
        with pytest.raises(pm.InputError, match="square grid"):
            make()
        return
    family = make()
    batch = family.processor.batch([family.processor.encode([user(media(0)[0], "what?")], reply=True)])
    assert family.model.read(batch).isfinite().all()


def test_tuned_adapters_are_read_back(tmp_path):
    family = small("senses")
    family.save(tmp_path / "base")
    family = pm.load(tmp_path / "base").adapt(rank=2)
    torch.nn.init.normal_(family.language.body.blocks[0].attn.q.lora_b)
    family.save(tmp_path / "adapter")
    asked = [user(*heard(0), "what?")]
    assert pm.load(tmp_path / "adapter").reply(asked, max_tokens=8) == family.reply(asked, max_tokens=8)


def test_packed_with_other_media_is_one_by_one():
    family, objective = small("senses"), OBJECTIVES["answers"]
    samples = [Sample((user(*heard(i)[i:], "what?"), assistant("a red star"))) for i in range(3)]
    encoded = [objective.encode(family.processor, sample) for sample in samples]
    with torch.no_grad():
        packed = objective.loss(family.model, objective.packed(family.processor, encoded))
        alone = [objective.loss(family.model, objective.batch(family.processor, [one])) for one in encoded]
    assert packed.item() == pytest.approx(sum(loss.item() for loss in alone) / 3, abs=1e-5)


SHAPES = ("circle", "star", "square")


class Shapes:
    """What makes the sound, of things of one colour"""

    size = None

    def sample(self, index: int) -> Sample:
        shape = SHAPES[index % 3]
        audio = pm.Audio(sound(single_object_scene(index, "red", shape)), 16_000)
        return Sample((user(audio, "what?"), assistant(shape)))


def test_a_composed_model_learns_to_tell_sounds_apart():
    torch.manual_seed(0)
    connector = {"kind": "resampler", "latents": 2, "depth": 1, "heads": 4, "head_dim": 8}
    family = pm.compose(audio="tiny/bind", connector=connector, language=small("llama", std=0.05))
    stage = Stage("s", "answers", "", {"connector": 3e-3, "language": 3e-3}, steps=40, batch=6)
    before = family.model.encoder["audio"].embed.project.weight.clone()
    list(train(family, Shapes(), stage))
    assert torch.equal(family.model.encoder["audio"].embed.project.weight, before)
    unheard = [Shapes().sample(10_000 + i) for i in range(12)]
    right = [family.reply(s.messages[0], max_tokens=4).text == s.messages[1].text for s in unheard]
    assert sum(right) >= 10


def test_a_data_set_of_sounds_is_checked_and_shown():
    family = small("senses")

    class Sounds:
        size = 2

        def sample(self, index: int) -> Sample:
            return sound_sample(index)

    report = check(Sounds(), family.processor)
    assert (report.samples, report.bad) == (2, 0)
    page = sheet(Sounds(), family.processor, 2, "sounds")
    assert "sound 1 × 15" in page and page.count("<img") == 6  # a spectrum of each clip
    alone = check(Sounds(), small("llava").processor)
    assert alone.bad == 2 and "not audio" in alone.first["unusable"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(audio="imagebind"), "needs a language model, and vision or audio"),
        (dict(language="llama"), "needs a language model, and vision or audio"),
        (dict(audio="imagebind", language="llama", frames=4), "frames need vision"),
        (dict(audio="clip", language="llama"), "no audio encoder to compose with"),
        (dict(audio="imagebind", language="llama", connector="gated"), "unknown connector 'gated'"),
        (dict(vision="imagebind", language="llama", layer=-1, frames=3), "3 are no multiple"),
        (dict(vision="clip", language="llama", layer=-3, frames=2), "no vision layer -3: -1 is the last, -2 the first"),
        (
            dict(vision="clip", audio="imagebind", language="llama", connector={"audio": "mlp"}),
            "connector names audio: it is a kind, a table of one and its options, or one of these for each encoder",
        ),
    ],
)
def test_what_cannot_be_composed(given, message):
    parts = {k: small(v) if k in ("vision", "audio", "language") else v for k, v in given.items()}
    with pytest.raises(pm.InputError, match=message) as error:
        pm.compose(**parts)
    assert "\n" not in str(error.value)


def test_what_a_model_without_eyes_is_shown():
    family = pm.compose(audio=small("imagebind"), language=small("llama"), connector="linear")
    with pytest.raises(
        pm.InputError, match="1 pictures and its text 0 placeholders for them; this model does not take"
    ):
        family.reply([user(scene_picture(0), "what?")])


def test_the_command_takes_sounds(command, tmp_path):
    family = small("senses")
    family.save(tmp_path / "model")
    audio = pm.Audio(np.sin(np.arange(16_000) / 9).astype(np.float32), 16_000)
    (tmp_path / "beep.wav").write_bytes(audio._file()[1])
    asked = command("ask", tmp_path / "beep.wav", "what?", "--model", tmp_path / "model", "--max-tokens", 4)
    expected = family.reply([user(pm.Audio(tmp_path / "beep.wav"), "what?")], max_tokens=4)
    assert asked.code == 0 and asked.out.strip() == expected.text.strip()
    refused = command("ask", tmp_path / "beep.wav", "what?", "--model", "tiny/chat")
    assert refused.code == 1 and refused.err.count("\n") == 1 and "not audio" in refused.err
