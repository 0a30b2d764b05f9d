"""Adapters as PEFT puts them on the reference library's models."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

import panmodal as pm
from panmodal.lora import adapters
from tests.parity.reference import LANGUAGE_MODELS, TEXT, VISION, close, load, tokens, write

FORMATS = ("gpt2", "opt", "gpt_neox", "mpt", "llama", "qwen3", "llava")


def reference(name):
    if name != "llava":
        return LANGUAGE_MODELS[name]()
    text = {"model_type": "llama", **TEXT, "num_key_value_heads": 2, "eos_token_id": None}
    vision = {"model_type": "clip_vision_model", **VISION}
    return tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=99)
    )


@pytest.fixture(params=FORMATS)
def written(request, tmp_path):
    """A model of the reference library; ours with adapters that do something, and a connector that was trained; and
    the folder that they are saved in."""
    theirs = write(reference(request.param), tmp_path / "base")
    ours = load(tmp_path / "base").adapt(rank=2, alpha=6, targets=() if request.param != "gpt2" else ("q", "v", "up"))
    for adapter in adapters(ours.model).values():
        torch.nn.init.normal_(adapter.lora_b, std=0.3)
    if request.param == "llava":
        ours.model.connector.up.weight.data.mul_(2)
        ours.tuned = {"connector.up.weight"}
    ours.save(tmp_path / "adapter")
    return ours, theirs, tmp_path


def logits(ours, theirs):
    ids = tokens(2, 12)
    with torch.no_grad():
        return ours.language(ids), theirs(ids).logits


def test_the_file_says_what_is_added_to_which_module(written):
    """PEFT's sum, by hand: W + alpha / r * B A, at the modules that the file names."""
    ours, theirs, folder = written
    expected, plain = logits(ours, theirs)
    assert not torch.allclose(expected, plain, atol=0.1)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    for path in config["target_modules"]:
        module = theirs.get_submodule(path)
        a, b = (tensors.pop(f"base_model.model.{path}.lora_{half}.weight") for half in "AB")
        assert len(a) == config["rank_pattern"].get(path, config["r"])
        added = config["alpha_pattern"].get(path, config["lora_alpha"]) / len(a) * (b @ a)
        assert config["fan_in_fan_out"] == any(isinstance(m, Conv1D) for m in theirs.modules())
        module.weight.data += added.T if isinstance(module, Conv1D) else added
    for path in config["modules_to_save"] or ():
        module = theirs.get_submodule(path)
        module.load_state_dict({leaf: tensors.pop(f"base_model.model.{path}.{leaf}") for leaf in module.state_dict()})
    assert not tensors
    close(*logits(ours, theirs), within=1e-4)
    if "llava" in config["target_modules"][0] or config["modules_to_save"]:
        images = torch.randn(1, 3, 32, 32)
        ids = torch.cat([torch.full((1, ours.processor.image_vectors), 99), tokens(1, 5)], dim=1)
        with torch.no_grad():
            close(ours.model(ids, images), theirs(input_ids=ids, pixel_values=images).logits, 1e-4)


def test_peft_loads_what_is_written(written):
    peft = pytest.importorskip("peft")
    ours, theirs, folder = written
    wrapped = peft.PeftModel.from_pretrained(theirs, folder / "adapter").eval()
    with torch.no_grad():
        close(ours.language(tokens(2, 12)), wrapped(tokens(2, 12)).logits, 1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_what_peft_writes_is_loaded(name, tmp_path):
    peft = pytest.importorskip("peft")
    theirs = write(reference(name), tmp_path / "base")
    inner = next(m for n, m in theirs.named_modules() if isinstance(m, torch.nn.ModuleList) and "vision" not in n)
    (place,) = [n for n, m in theirs.named_modules() if m is inner]
    targets = [
        f"{place}.{n}" for n, m in inner.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)
    ]  # those of the language model's layers
    saved = ["linear_1"] if name == "llava" else None
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=3, lora_alpha=7, target_modules=targets, modules_to_save=saved)
    )
    for parameter_name, parameter in wrapped.named_parameters():
        if "lora_B" in parameter_name or "modules_to_save" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(tmp_path / "adapter")
    ours = pm.load(tmp_path / "base", adapter=tmp_path / "adapter")
    with torch.no_grad():
        expected = wrapped.eval()(tokens(2, 12)).logits
        close(ours.language(tokens(2, 12)), expected, 1e-4)
        close(ours.merge().language(tokens(2, 12)), expected, 1e-4)
        if saved:
            images = torch.randn(1, 3, 32, 32)
            ids = torch.cat([torch.full((1, ours.processor.image_vectors), 99), tokens(1, 5)], dim=1)
            close(ours.model(ids, images), wrapped(input_ids=ids, pixel_values=images).logits, 1e-4)
