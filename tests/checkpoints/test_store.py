from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

import panmodal as pm
from panmodal.checkpoints.store import replacing, save_checkpoint
from panmodal.errors import CheckpointError
from tests.parity.reference import LANGUAGE_MODELS, TEXT, VISION, write
from tests.parity.test_llava import LM
from tests.parity.test_towers import IMAGE_ENCODERS

EVERY = {
    **LANGUAGE_MODELS,
    **{k: v for k, v in IMAGE_ENCODERS.items() if k != "vit-no-bias"},  # whose own class would want a pooler
    "vit-classifier": lambda: tf.ViTForImageClassification(tf.ViTConfig(**VISION, id2label={0: "a", 1: "b", 2: "c"})),
    "dinov2-classifier": lambda: tf.Dinov2ForImageClassification(tf.Dinov2Config(**VISION)),
    "bert": lambda: tf.BertModel(tf.BertConfig(**TEXT)),
    "bert-pretraining": lambda: tf.BertForPreTraining(tf.BertConfig(**TEXT)),
    "clip-both": lambda: tf.CLIPModel(tf.CLIPConfig(vision_config=VISION, text_config=TEXT)),
    "clip-text": lambda: tf.CLIPTextModel(tf.CLIPTextConfig(**TEXT)),
    "clip-text-projected": lambda: tf.CLIPTextModelWithProjection(tf.CLIPTextConfig(**TEXT)),
    "siglip-both": lambda: tf.SiglipModel(tf.SiglipConfig(vision_config=VISION, text_config=TEXT)),
    "llava": lambda: tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(
            vision_config={"model_type": "clip_vision_model", **VISION},
            text_config={"model_type": "llama", **LM},
            image_token_index=99,
        )
    ),
}


@pytest.mark.parametrize("name", EVERY)
def test_what_is_loaded_is_saved_back_as_it_came(name, tmp_path):
    """Every tensor under its own name, with its own shape and bits, unused ones among them; and the
    reference reads it without a word."""
    theirs = write(EVERY[name](), tmp_path / "theirs")
    pm.load(tmp_path / "theirs").save(tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    again, told = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    for ours, expected in zip(again.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, expected)


def llama(folder: Path) -> Path:
    write(LANGUAGE_MODELS["llama"](), folder)
    return folder


def test_shards(tmp_path):
    theirs = write(LANGUAGE_MODELS["llama"](), tmp_path / "a", max_shard_size="50kB")
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 2
    model = pm.load(tmp_path / "a")
    save_checkpoint(tmp_path / "b", model.model, model.checkpoint, shard_bytes=50_000)
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 2
    again = type(theirs).from_pretrained(tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs.parameters(), strict=True))


def change(folder: Path, **tensors) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        weights.pop(key, None)
        if tensor is not None:
            weights[key] = tensor
    save_file(weights, file, {"format": "pt"})


def test_a_missing_weight_is_named(tmp_path):
    change(llama(tmp_path), model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(CheckpointError, match=r"'model.layers.1.mlp.up_proj.weight' \[96, 48\] is missing"):
        pm.load(tmp_path)


def test_an_extra_weight_is_named(tmp_path):
    change(llama(tmp_path), model__layers__1__mlp__gap__weight=torch.zeros(2, 3))
    with pytest.raises(CheckpointError, match=r"unknown tensor 'model.layers.1.mlp.gap.weight' \[2, 3\]"):
        pm.load(tmp_path)


def test_a_layer_more_than_the_configuration_has(tmp_path):
    change(llama(tmp_path), model__layers__9__input_layernorm__weight=torch.zeros(48))
    with pytest.raises(CheckpointError, match="unknown tensor 'model.layers.9"):
        pm.load(tmp_path)


def test_a_mis_shaped_weight_is_named_with_both_shapes(tmp_path):
    change(llama(tmp_path), model__norm__weight=torch.zeros(47))
    with pytest.raises(CheckpointError, match=r"'model.norm.weight' is \[47\], config.json makes it \[48\]"):
        pm.load(tmp_path)


def test_a_truncated_file(tmp_path):
    file = llama(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        pm.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"hidden_act": "gulu"}, "did you mean 'gelu'"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rotary scaling 'yarn'"),
    ],
)
def test_settings_that_are_not_read(change, message, tmp_path):
    file = llama(tmp_path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        pm.load(tmp_path)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        pm.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match="not readable JSON"):
        pm.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match=r"no model.safetensors"):
        pm.load(tmp_path)


def test_a_pickle_is_read_only_when_asked_for(tmp_path):
    folder = llama(tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickle.*--allow-pickle"):
        pm.load(folder)
    assert pm.load(folder, allow_pickle=True).model.head.weight.shape == (100, 48)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/panmodal-was-here",)


def test_a_pickle_with_code_is_refused_even_then(tmp_path):
    folder = llama(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Evil()}))
    with pytest.raises(CheckpointError, match="cannot be read as plain weights"):
        pm.load(folder, allow_pickle=True)
    assert not Path("/tmp/panmodal-was-here").exists()


def test_saving_leaves_what_else_is_in_the_folder(tmp_path):
    model = pm.load(llama(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "README.md").write_text("mine")
    (tmp_path / "b" / "model-00001-of-00002.safetensors").write_text("an old shard")
    model.save(tmp_path / "b")
    assert (tmp_path / "b" / "README.md").read_text() == "mine"
    assert [p.name for p in (tmp_path / "b").glob("*.safetensors")] == ["model.safetensors"]
    with pytest.raises(CheckpointError, match="is a file"):
        model.save(tmp_path / "b" / "README.md")


def rewrite_forever(folder: Path) -> None:
    for i in range(10**9):
        with replacing(folder) as fresh:
            for name in ("a", "b", "c"):
                (fresh / name).write_text(str(i) * 50_000)


def test_a_writer_killed_at_any_moment_leaves_a_whole_folder(tmp_path):
    folder = tmp_path / "state"
    rng = random.Random(0)
    for _ in range(12):
        writer = multiprocessing.get_context("fork").Process(target=rewrite_forever, args=(folder,))
        writer.start()
        deadline = time.monotonic() + 20
        while not folder.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        found = [p for p in (folder, *tmp_path.glob(".state.*.old")) if p.exists()]
        assert found, "neither the old nor the new state is there"
        for state in found:
            assert len({(state / name).read_text() for name in ("a", "b", "c")}) == 1
