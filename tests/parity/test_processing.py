"""Pictures to pixels, text to ids and conversations to prompts, as the reference does it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image as Pil

from panmodal.data.pictures import ImageTransform
from panmodal.data.sample import Image, assistant, system, user
from panmodal.data.template import ChatTemplate
from panmodal.data.tokens import Tokenizer

IMAGE_PROCESSORS = {
    "clip": lambda: tf.CLIPImageProcessorPil(),
    "clip-336": lambda: tf.CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    "siglip": lambda: tf.SiglipImageProcessorPil(),
    "siglip2-384": lambda: tf.SiglipImageProcessorPil(size={"height": 384, "width": 384}, resample=2),
    "vit": lambda: tf.ViTImageProcessorPil(),
    "dinov2": lambda: tf.BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ),
    "blip": lambda: tf.BlipImageProcessorPil(),
    "llava-pad": lambda: tf.LlavaImageProcessorPil(do_pad=True),
}


@pytest.fixture(scope="module")
def photos(fixtures: Path) -> list[Pil.Image]:
    found = [Pil.open(path).convert("RGB") for path in sorted((fixtures / "photos").glob("*.jpg"))]
    assert len(found) == 48
    return found


def check(theirs, pictures, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = ImageTransform.from_config(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    for picture in pictures:
        expected = theirs(picture, return_tensors="pt")["pixel_values"]
        assert (ours([picture]) - expected).abs().max() < 1e-3


@pytest.mark.parametrize("name", IMAGE_PROCESSORS)
def test_photographs(name, photos, tmp_path):
    check(IMAGE_PROCESSORS[name](), photos, tmp_path)


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "dinov2", "blip"])
@pytest.mark.parametrize("size", [(31, 17), (500, 20), (97, 1024), (224, 224), (1, 1)])
def test_odd_sizes(name, size, tmp_path):
    picture = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    check(IMAGE_PROCESSORS[name](), [picture], tmp_path)


def test_settings_of_the_first_generation():
    """Files from before 2023 give sizes as single numbers."""
    clip = ImageTransform.from_config(
        {"feature_extractor_type": "CLIPFeatureExtractor", "do_center_crop": True, "size": 224, "crop_size": 224}
    )
    assert (clip.shortest, clip.height, clip.width) == (224, 224, 224)
    vit = ImageTransform.from_config(
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "image_mean": [0.5] * 3}
    )
    assert (vit.shortest, vit.height, vit.width, vit.resample) == (None, 224, 224, Pil.Resampling.BILINEAR)


STRINGS = [
    "a photo of a cat",
    "  Once upon   a time,\nthere's a “dragon” — it'll cost $3.50!  ",
    "ÉCLAIR naïve 北京 こんにちは 🐉🏳️‍🌈 ǅ",
    "don't stop-believin' 12345 x=y_z <|endoftext|> #tag @you",
    "",
]


def clip_files(fixtures: Path) -> dict[str, bytes]:
    """CLIP's vocabulary is its 256 bytes, the same at a word's end, its merges and two marks."""
    merges = (fixtures / "tokenizers/clip/clip_vocab.bpe").read_text("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {b: chr(b) for b in printable} | {
        b: chr(256 + n) for n, b in enumerate(b for b in range(256) if b not in printable)
    }
    letters = [shown[b] for b in [*printable, *(b for b in range(256) if b not in printable)]]
    words = [*letters, *(c + "</w>" for c in letters), *("".join(m.split()) for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocab = json.dumps({word: i for i, word in enumerate(words)}).encode()
    return {"vocab.json": vocab, "merges.txt": ("#version: 0.2\n" + "\n".join(merges)).encode()}


def write(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_clip_tokens(fixtures, tmp_path):
    files = clip_files(fixtures)
    theirs = tf.CLIPTokenizer.from_pretrained(write(files, tmp_path))
    theirs.save_pretrained(tmp_path / "new")
    new = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}
    for ours in (Tokenizer.from_files(files), Tokenizer.from_files(new)):
        for text in STRINGS:
            assert ours.encode(text) == theirs(text)["input_ids"], text


@pytest.mark.parametrize("lowercase", [True, False])
def test_bert_tokens(fixtures, tmp_path, lowercase):
    vocab = (fixtures / "tokenizers/bert_base_uncased/vocab.txt").read_bytes()
    files = {"vocab.txt": vocab, "tokenizer_config.json": json.dumps({"do_lower_case": lowercase}).encode()}
    theirs = tf.BertTokenizer.from_pretrained(write(files, tmp_path), do_lower_case=lowercase)
    ours = Tokenizer.from_files(files)
    for text in STRINGS:
        assert ours.encode(text) == theirs(text)["input_ids"], text


def test_llama_tokens(fixtures):
    folder = fixtures / "stories260K"
    theirs = tf.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_files({p.name: p.read_bytes() for p in folder.glob("*.json")})
    for text in STRINGS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAVA], ids=["chatml", "llama2", "llava"])
@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("turns", [1, 3])
def test_chat_templates(fixtures, template, reply, turns):
    theirs = tf.AutoTokenizer.from_pretrained(fixtures / "stories260K")
    ours = ChatTemplate(template, special={"bos_token": "<s>", "eos_token": "</s>"})
    pictures = [Image(np.zeros((4, 4, 3), np.uint8))] if template == LLAVA else []
    conversation = [user(*pictures, "What is this?"), assistant("A cat."), user("And its colour? {{ 7 }}")][:turns]
    if template != LLAVA:
        conversation = [system("Be brief."), *conversation]
    plain = [
        {
            "role": m.role,
            "content": [{"type": "image"}] * len(m.images) + [{"type": "text", "text": m.text}]
            if template == LLAVA
            else m.text,
        }
        for m in conversation
    ]
    expected = theirs.apply_chat_template(plain, chat_template=template, tokenize=False, add_generation_prompt=reply)
    assert ours.render(conversation, reply) == expected


def test_clip_end_to_end(fixtures, tmp_path):
    """A checkpoint folder as the reference writes it: a picture and texts in, the same likeness out."""
    import panmodal as pm
    from tests.parity.reference import VISION
    from tests.parity.reference import write as write_model

    text = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    config = tf.CLIPConfig(
        vision_config={**VISION, "image_size": 224, "patch_size": 32}, text_config=text, projection_dim=24
    )
    theirs = write_model(tf.CLIPModel(config), tmp_path)
    write(clip_files(fixtures), tmp_path)
    processor = tf.CLIPProcessor(tf.CLIPImageProcessorPil(), tf.CLIPTokenizer.from_pretrained(tmp_path))
    processor.save_pretrained(tmp_path)
    ours = pm.load(tmp_path)
    photo = sorted((fixtures / "photos").glob("*.jpg"))[0]
    texts = ["a photo of a cat", "two long boats are sailing near a large bridge"]
    batch = processor(text=texts, images=Pil.open(photo), return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs(**batch)
    found = ours.embed([pm.Image(photo), *texts])
    assert (found[:1] - expected.image_embeds).abs().max() < 1e-4
    assert (found[1:] - expected.text_embeds).abs().max() < 1e-4
    odds = ours.classify(pm.Image(photo), texts, templates=["{}"])
    assert list(odds.values()) == pytest.approx(expected.logits_per_image.softmax(-1)[0].tolist(), abs=1e-4)
