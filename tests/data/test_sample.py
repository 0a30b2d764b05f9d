from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panmodal.data.sample import Batch, Image, Message, Sample, as_conversation, assistant, system, user
from panmodal.errors import InputError

texts = st.text(max_size=30)
pictures = st.builds(lambda n: Image(np.full((2, 2, 3), n, np.uint8)), st.integers(0, 255))
messages = st.builds(
    lambda role, parts: {"system": system, "user": user, "assistant": assistant}[role](*parts),
    st.sampled_from(["system", "user", "assistant"]),
    st.lists(st.one_of(texts, pictures), max_size=4),
)


@given(st.lists(messages, max_size=4))
def test_json_and_back(conversation):
    sample = Sample(tuple(conversation), {"id": 3})
    back = Sample.from_json(sample.to_json())
    assert back.about == {"id": 3}
    for ours, theirs in zip(back.messages, conversation, strict=True):
        assert (ours.role, ours.text, ours.images) == (theirs.role, theirs.text, theirs.images)


def test_the_form_of_the_chat_api():
    value = {
        "role": "user",
        "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "cat.jpg"}}],
    }
    assert Message.from_json(value).to_json() == value
    assert Message.from_json({"role": "user", "content": "hi"}) == user("hi")
    shorthand = {"role": "user", "content": [{"type": "image_url", "image_url": "cat.jpg"}]}
    assert Message.from_json(shorthand).images[0].name == "cat.jpg"


def test_paths_are_relative_to_their_file(tmp_path):
    value = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "cat.jpg"}}]}
    assert Message.from_json(value, tmp_path).images[0].source == tmp_path / "cat.jpg"


@pytest.mark.parametrize(
    "bad",
    [
        3,
        {"role": "user"},
        {"role": "cat", "content": ""},
        {"role": "user", "content": 7},
        {"role": "user", "content": [{"type": "txt", "text": "x"}]},
        {"role": "user", "content": [{"type": "image_url"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://example.com/a.png"}}]},
    ],
)
def test_what_is_no_message(bad):
    with pytest.raises(InputError):
        Message.from_json(bad)


def test_what_can_be_said():
    assert as_conversation("hi") == [user("hi")]
    assert as_conversation(user("hi")) == [user("hi")]
    assert as_conversation([user("hi"), assistant("ho")])[1].text == "ho"


def test_a_batch_moves_whole():
    batch = Batch(torch.zeros(1, 2, dtype=torch.long), images=torch.zeros(1, 3, 4, 4)).to("meta")
    assert batch.ids.device.type == batch.images.device.type == "meta"
    assert batch.pad is None


def test_detail_travels_with_a_picture():
    value = {"type": "image_url", "image_url": {"url": "cat.jpg", "detail": "low"}}
    message = Message.from_json({"role": "user", "content": [value]})
    assert message.images[0].detail == "low"
    assert message.to_json()["content"] == [value]
    with pytest.raises(InputError, match="unknown detail 'lo'; did you mean 'low'"):
        Image("cat.jpg", detail="lo")
