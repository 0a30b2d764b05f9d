"""Adapters: where they are, what they do, and what is trained."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import panmodal as pm
from panmodal.lora import Lora, LoraLinear, adapters, adapters_off, linears
from panmodal.training import Stage, train
from tests.families.small import CHATS, small
from tests.families.test_every_family import Four

IDS = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))


def adapted(name: str, **settings):
    """With adapters that do something, as after a training."""
    family = small(name).adapt(Lora(**{"rank": 3, "alpha": 5.0, **settings}))
    for adapter in adapters(family.model).values():
        adapter.lora_b.data.normal_(std=0.3)
    return family


def test_an_adapter_is_that_of_its_paper():
    plain = torch.nn.Linear(6, 4)
    adapter = LoraLinear(plain, rank=2, alpha=3.0)
    x = torch.randn(5, 6)
    assert torch.equal(adapter(x), plain(x))  # B begins as zeros
    torch.nn.init.normal_(adapter.lora_b)
    expected = x @ (plain.weight + 3 / 2 * adapter.lora_b @ adapter.lora_a).T + plain.bias
    torch.testing.assert_close(adapter(x), expected)
    torch.testing.assert_close(adapter.merged()(x), expected)


def test_dropout_is_for_training_alone():
    adapter = LoraLinear(torch.nn.Linear(64, 4), rank=2, alpha=2.0, dropout=0.5)
    torch.nn.init.normal_(adapter.lora_b)
    x = torch.randn(3, 64)
    assert not torch.equal(adapter.train()(x), adapter(x))
    assert torch.equal(adapter.eval()(x), adapter(x))
    family = adapted("llama", dropout=0.5)
    assert torch.equal(family.language(IDS), family.language(IDS))  # put on a model that is not in training


@pytest.mark.parametrize("name", CHATS)
def test_adapters_are_in_the_language_models_blocks_alone(name):
    family = small(name)
    before = family.language(IDS)
    family.adapt(rank=3)
    found = adapters(family.model)
    assert len(found) == len(adapters(family.language)) == len(linears(family.language))
    assert all("body.blocks." in name and ".gate." not in name for name in found)  # a gated layer is not its own
    assert {type(m) for m in linears(family.language).values()} == {LoraLinear}
    assert torch.equal(family.language(IDS), before)
    chosen = small(name).adapt(rank=3, targets=("q", "v"))
    assert {n.rpartition(".")[2] for n in adapters(chosen.model)} == {"q", "v"}


def test_no_tower_is_touched_though_its_layers_have_the_same_names():
    family = small("llava")
    assert "attn.q.weight" in str(family.model.encoder.state_dict().keys())
    family.adapt()
    assert not adapters(family.model.encoder) and not adapters(family.model.connector)


@pytest.mark.parametrize("name", CHATS)
def test_saved_loaded_and_merged_are_equal(name, tmp_path):
    small(name).save(tmp_path / "base")
    family = adapted(name)
    expected = family.language(IDS)
    assert not torch.allclose(expected, small(name).language(IDS), atol=0.1)
    family.save(tmp_path / "adapter")
    loaded = pm.load(tmp_path / "base", adapter=tmp_path / "adapter")
    torch.testing.assert_close(loaded.language(IDS), expected, rtol=1e-5, atol=1e-5)
    loaded.merge().save(tmp_path / "merged")
    assert not adapters(loaded.model)
    torch.testing.assert_close(pm.load(tmp_path / "merged").language(IDS), expected, rtol=1e-4, atol=1e-4)


def test_switched_off_it_is_the_untouched_model_to_the_last_bit():
    family, before = adapted("llava", dropout=0.5), small("llava").language(IDS)
    with adapters_off(family.model.train()):
        assert torch.equal(family.language(IDS), before)
    assert not torch.equal(family.model.eval().language(IDS), before)


def test_a_conversation_is_not_remembered_beyond_a_change_of_weights():
    family = small("llama", std=0.4)
    ask = lambda: family.reply("Is there a star?", max_tokens=12).text  # noqa: E731
    plain = ask()
    family.adapt(rank=3)
    for adapter in adapters(family.model).values():
        torch.nn.init.normal_(adapter.lora_b)
    other = ask()
    assert other != plain and family.merge().reply("Is there a star?", max_tokens=12).text == other


def test_adapters_alone_are_trained_and_a_connector_whole(tmp_path):
    small("llava").save(tmp_path / "base")
    family = pm.load(tmp_path / "base")
    before = {n: p.clone() for n, p in family.model.named_parameters()}
    stage = Stage("s", "answers", "", {"language": 1e-2, "connector": 1e-2}, steps=2, batch=2, lora=Lora(rank=2))
    list(train(family, Four(True), stage))
    now = dict(family.model.named_parameters())
    assert {n for n, p in before.items() if not torch.equal(p, now[n])} == {n for n in before if "connector." in n}
    learned = [p for n, p in now.items() if n.endswith("lora_b")]
    assert len(learned) == 14 and all(p.abs().max() > 0 for p in learned)
    family.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base") and config["r"] == 2
    assert config["modules_to_save"] == [f"model.multi_modal_projector.linear_{i}" for i in (1, 2)]
    again = pm.load(tmp_path / "adapter")  # which says what it is for
    for name, parameter in again.model.named_parameters():
        torch.testing.assert_close(parameter, now[name], rtol=0, atol=0)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "adapter" / "adapter_model.safetensors"
    ).read_bytes()


def test_adapters_of_a_base_in_bfloat16_are_float32():
    family = small("llama").to(dtype=torch.bfloat16).adapt(rank=2)
    assert {p.dtype for n, p in family.model.named_parameters() if ".lora_" in n} == {torch.float32}
    (loss,) = [
        step.loss for step in train(family, Four(False), Stage("s", "answers", "", {"all": 1e-3}, steps=1, batch=2))
    ]
    assert 0 < loss < 100 and family.language(IDS).dtype == torch.bfloat16


def test_what_has_no_language_model_has_no_adapters():
    stage = Stage("s", "contrastive", "", {"all": 1e-3}, steps=1, batch=2, lora=Lora())
    with pytest.raises(pm.InputError, match="lora, which adapts a language model; Contrastive"):
        list(train(small("clip"), Four(True), stage))


def test_settings_that_cannot_be():
    with pytest.raises(pm.InputError, match="unknown target 'q_proj'; did you mean 'q'|known: down"):
        Lora(targets=("q_proj",))
    with pytest.raises(pm.InputError, match="rank must be at least 1"):
        Lora(rank=0)
    with pytest.raises(pm.InputError, match="none of lora's targets gate"):
        small("gpt2").adapt(targets=("gate",))
    with pytest.raises(pm.InputError, match="has adapters already"):
        adapted("llama").adapt()
    with pytest.raises(pm.InputError, match="has adapters already"):
        adapted("llama").read_adapter("anywhere")


@pytest.fixture
def folders(tmp_path):
    small("llava").save(tmp_path / "base")
    family = adapted("llava")
    family.base = str(tmp_path / "base")
    family.save(tmp_path / "adapter")
    return tmp_path / "base", tmp_path / "adapter"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rslora": True}, "sets {'use_rslora': True}; panmodal reads plain LoRA"),
        ({"use_dora": True}, "sets {'use_dora': True}"),
        ({"bias": "all"}, "sets {'bias': 'all'}"),
        ({"init_lora_weights": "pissa"}, "sets {'init_lora_weights': 'pissa'}"),
        ({"something_new": [1]}, r"sets {'something_new': \[1\]}"),
        ({"peft_type": "IA3"}, "is of IA3; panmodal reads LORA"),
    ],
)
def test_settings_that_are_not_plain_lora(folders, change, message):
    base, folder = folders
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(pm.CheckpointError, match=message):
        pm.load(base, adapter=folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model.language_model.layers.1.self_attn", "model.vision_tower.encoder.layers.1.self_attn", "these alone"),
        ("language_model.layers.1.mlp.up_proj", "language_model.embed_tokens", "no linear map in the language model"),
        ("layers.1.mlp.up_proj.lora_B", "layers.1.mlp.up_proj.lora_C", "which this model lacks"),
    ],
)
def test_adapters_elsewhere_are_not_lost_silently(folders, old, new, message):
    base, folder = folders
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace(old, new): t for name, t in tensors.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(pm.CheckpointError, match=message):
        pm.load(base, adapter=folder)


def test_adapters_that_do_not_fit_or_are_not_all_there(folders):
    base, folder = folders
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: t for n, t in tensors.items() if "layers.0.mlp.up_proj.lora_A" not in n}, file)
    with pytest.raises(pm.CheckpointError, match="not both lora_A and lora_B of"):
        pm.load(base, adapter=folder)
    save_file({n: t.repeat(2, 2) for n, t in tensors.items()}, file)
    with pytest.raises(pm.CheckpointError, match="is for another model"):
        pm.load(base, adapter=folder)
    (folder / "non_lora_trainables.bin").write_bytes(b"")
    with pytest.raises(pm.CheckpointError, match="non_lora_trainables.bin"):
        pm.load(base, adapter=folder)
    shutil.copy(folder / "adapter_config.json", base)
    file.unlink()
    (folder / "non_lora_trainables.bin").unlink()
    with pytest.raises(pm.CheckpointError, match=r"has no adapter_model.safetensors"):
        pm.load(folder)
    with pytest.raises(pm.InputError, match="adapters are for language models"):
        pm.load("tiny/clip", adapter=folder)


def test_files_name_modules_as_they_were_published(folders):
    """Adapters that were made before `transformers` moved LLaVA's modules, and scales that are single modules' own."""
    folder = folders[1]
    expected = pm.load(folder).language(IDS)
    tensors = load_file(folder / "adapter_model.safetensors")
    old = {n.replace(".model.model.language_model.", ".model.language_model.model."): t for n, t in tensors.items()}
    assert not old.keys() & tensors.keys()
    config = json.loads((folder / "adapter_config.json").read_text())
    ends = ("q_proj", "k_proj", "v_proj", "o_proj", "mlp.up_proj", "gate_proj", "down_proj")
    config |= {"lora_alpha": 1, "alpha_pattern": dict.fromkeys(ends, 5)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(old, folder / "adapter_model.safetensors")
    torch.testing.assert_close(pm.load(folder).language(IDS), expected, rtol=0, atol=0)
