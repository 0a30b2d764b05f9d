"""LLaVA-OneVision: videos, alone and beside pictures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

import panmodal as pm
from panmodal.generate import Sampling, generate
from panmodal.playground.speech import tokenizer
from tests.families.small import small
from tests.parity.reference import TEXT, VISION, close, write

GRIDS = [[30, 60], [60, 30], [60, 60]]
WORDS = tokenizer()
IMAGE, VIDEO = WORDS.add_special("<image>"), WORDS.add_special("<video>")
TEMPLATE = (  # as the published one: of each message pictures first, then videos, then words
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for kind in ['image', 'video'] %}{% for part in message['content'] if part['type'] == kind %}"
    "<{{ kind }}>{% endfor %}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SIZE = {"height": 30, "width": 30}
OWN = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": SIZE, "num_frames": 5, "do_pad": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published folder; an odd side of five vectors, which is halved to three."""
    return tmp_path_factory.mktemp("onevision")


@pytest.fixture(scope="module")
def pair(folder):
    config = tf.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            **VISION,
            "image_size": 30,
            "patch_size": 6,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            **TEXT,
            "vocab_size": 400,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "eos_token_id": None,
        },
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=GRIDS,
    )
    theirs = write(tf.LlavaOnevisionForConditionalGeneration(config), folder)
    pictures = tf.LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=GRIDS, image_mean=[0.5] * 3)
    pictures.save_pretrained(folder)
    files = {**WORDS.to_files(), "chat_template.jinja": TEMPLATE.encode()}
    files["video_preprocessor_config.json"] = json.dumps(OWN).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return pm.load(folder), theirs, pictures


def clip(seed=0, frames=12, size=(40, 56)):
    return pm.Video(np.random.default_rng(seed).integers(0, 255, (frames, *size, 3), dtype=np.uint8), rate=4)


def seen_by_reference(*videos):
    """Pictures of the same settings: `LlavaOnevisionVideoProcessor`, which needs torchvision, sets these."""
    frames = tf.SiglipImageProcessorPil(size=SIZE, image_mean=OPENAI_CLIP_MEAN, image_std=OPENAI_CLIP_STD, resample=3)
    chosen = [[0, 3, 6, 9, 11]] * len(videos)  # of 12
    shown = [[video.source[i] for i in at] for video, at in zip(videos, chosen, strict=True)]
    return torch.stack([frames(list(one), return_tensors="pt")["pixel_values"] for one in shown])


def test_frames_and_their_vectors(pair):
    family, theirs, _ = pair
    videos = clip(0), clip(1)
    encoded = family.processor.encode([pm.user(*videos, "what?")], reply=True)
    batch = family.processor.batch([encoded])
    expected = seen_by_reference(*videos)
    close(batch.media["video"].squeeze(1).transpose(1, 2), expected, 1e-3)
    told = LlavaOnevisionProcessor.replace_video_token(
        SimpleNamespace(num_image_tokens=25, video_token="<video>"), {"pixel_values_videos": expected}, 0
    )
    assert encoded.vectors == [told.count("<video>")] * 2 == [5 * 9 + 1] * 2
    with torch.no_grad():
        found = theirs.model.get_video_features(pixel_values_videos=expected, return_dict=True).pooler_output
        close(family.model.encode_videos(batch.media["video"]), found, 1e-4)


@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_logits_and_generation(pair, pictures):
    """Videos before pictures as they are given, after them as the template puts them."""
    family, theirs, processor = pair
    images = [pm.Image(clip(2 + i).source[0]) for i in range(pictures)]
    videos = clip(0), clip(1)
    encoded = family.processor.encode([pm.user(videos[0], *images, "what is this?", videos[1])], reply=True)
    assert encoded.media == [*images, *videos]
    batch = family.processor.batch([encoded])
    seen = dict(pixel_values_videos=seen_by_reference(*videos))
    if images:
        seen |= processor([[image.pixels for image in images]], return_tensors="pt")
    with torch.no_grad():
        ours = family.model(batch.ids, batch.images, sizes=batch.sizes, videos=batch.media["video"])
        close(ours, theirs(input_ids=batch.ids, **seen).logits, 1e-4)
        x = family.vectors(batch.ids, family._look(encoded.shown))
    new = torch.stack(list(generate(family.language, batch.ids, x, Sampling(max_tokens=32))), 1)
    expected = theirs.generate(input_ids=batch.ids, **seen, max_new_tokens=32, do_sample=False, pad_token_id=0)
    assert new.tolist() == expected[:, batch.ids.shape[1] :].tolist()


def test_a_second_question_about_a_video_costs_the_question_alone(pair, monkeypatch):
    family, _, _ = pair
    seen, encode = [], family.encode_others
    monkeypatch.setattr(family, "encode_others", lambda kind, media: seen.append(len(media)) or encode(kind, media))
    family.forget()
    first = family.reply([pm.user(clip(), "what?")], max_tokens=8)
    second = [pm.user(clip(), "what?"), first, pm.user(pm.Image(clip().source[0]), "and this?")]
    said = family.reply(second, max_tokens=8)
    assert seen == [1]
    family.forget()
    assert family.reply_all([[pm.user("how many?")], second], max_tokens=8)[1] == said


def test_without_settings_of_their_own_videos_are_seen_as_pictures_in_32_frames(pair, folder, tmp_path):
    family, _, _ = pair
    family.save(tmp_path)
    assert (tmp_path / "video_preprocessor_config.json").read_bytes() == json.dumps(OWN).encode()
    (tmp_path / "video_preprocessor_config.json").unlink()
    processor = pm.load(tmp_path).processor
    frames = processor.medium("video", [clip(frames=100)])
    assert frames.shape == (1, 1, 3, 32, 30, 30)
    assert frames.min() == pytest.approx(-0.5 / OPENAI_CLIP_STD[0], abs=0.2)  # of mean 0.5, as pictures here
    assert processor.encode([pm.user(clip(frames=1))], reply=True).vectors == [32 * 9 + 1]


def test_videos_that_cannot_be_shown(pair):
    family, _, _ = pair
    for model, video, told in (
        (family, pm.Video(np.zeros((0, 8, 8, 3), np.uint8), rate=4), "the video has no frames"),
        (small("llava"), clip(), "this model converses about text and pictures, not video"),
        (small("llama"), clip(), "this model converses about text and pictures, not video"),
        (family, pm.Audio(np.zeros(100, np.float32), 100), "converses about text, pictures and videos, not audio"),
    ):
        with pytest.raises(pm.InputError, match=told) as error:
            model.reply([pm.user(video, "what?")])
        assert "\n" not in str(error.value)
    with pytest.raises(pm.InputError, match="0 videos and its text 1 placeholders"):
        family.reply("<video> what?")


def test_the_command_takes_videos(pair, folder, command, tmp_path):
    av = pytest.importorskip("av", reason="av (the extra 'video') is not installed")
    family, _, _ = pair
    with av.open(tmp_path / "clip.mp4", "w") as out:
        stream = out.add_stream("mpeg4", rate=4)
        stream.height, stream.width = 40, 56
        for frame in clip().source:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    asked = command("ask", tmp_path / "clip.mp4", "what?", "--model", folder, "--max-tokens", 4)
    expected = family.reply([pm.user(pm.Video(tmp_path / "clip.mp4"), "what?")], max_tokens=4)
    assert asked.code == 0 and asked.out.strip() == expected.text.strip()
    refused = command("ask", tmp_path / "clip.mp4", "what?", "--model", "tiny/chat")
    assert refused.code == 1 and refused.err.count("\n") == 1 and "not video" in refused.err
