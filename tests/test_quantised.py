"""A frozen base in 4 or 8 bits under adapters."""

from __future__ import annotations

import builtins

import pytest
import torch

import panmodal as pm
from panmodal.lora import Lora, LoraLinear, QuantisedLora, adapters
from panmodal.quantised import dequantise, quantise
from panmodal.training import Stage, train
from panmodal.training.plan import make_plan
from tests.families.small import small
from tests.families.test_every_family import Four

IDS = torch.randint(5, 300, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["int8", "nf4"])
def bits(request):
    if request.param == "nf4":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes (the extra 'quantized') is not installed")
    return request.param


def quantised(bits: str, name: str = "llama", **settings):
    family = small(name).adapt(Lora(**{"rank": 3, "alpha": 5.0, "base": bits, **settings}))
    for adapter in adapters(family.model).values():
        adapter.lora_b.data.normal_(std=0.3)
    return family


def test_codes_stand_for_about_the_weight(bits):
    torch.manual_seed(0)
    weight = torch.randn(33, 70)
    found = dequantise(*quantise(weight, bits), weight.shape, bits)
    assert found.dtype == torch.float32 and found.shape == weight.shape
    assert (found - weight).norm() / weight.norm() < {"nf4": 0.11, "int8": 0.011}[bits]
    assert torch.equal(dequantise(*quantise(torch.zeros(4, 64), bits), (4, 64), bits), torch.zeros(4, 64))


def test_a_product_and_its_gradient_are_those_of_what_the_codes_stand_for(bits):
    torch.manual_seed(0)
    adapter = QuantisedLora(torch.nn.Linear(70, 33), 2, 3.0, 0.0, bits)
    torch.nn.init.normal_(adapter.lora_b)
    plain = torch.nn.Linear(70, 33)
    plain.weight.data = dequantise(adapter.codes, adapter.scales, (33, 70), bits)
    plain.bias.data = adapter.bias.data
    expected = LoraLinear(plain, 2, 3.0)
    expected.lora_a.data, expected.lora_b.data = adapter.lora_a.data, adapter.lora_b.data
    x = torch.randn(5, 70)
    found = []
    for layer in (adapter, expected):
        given = x.clone().requires_grad_()
        (out := layer(given)).square().sum().backward()
        found.append((out, given.grad, layer.lora_a.grad, layer.lora_b.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(adapter.merged()(x), expected(x))


def test_the_base_takes_a_share_of_the_bytes(bits):
    family = quantised(bits)
    whole = sum(m.out_features * m.in_features * 4 for m in adapters(family.model).values())
    kept = sum(b.numel() * b.element_size() for m in adapters(family.model).values() for b in m.buffers())
    assert kept < {"nf4": 0.145, "int8": 0.285}[bits] * whole  # of float32's bytes
    assert not any(name.endswith("q.weight") for name, _ in family.model.named_parameters())


def test_adapters_alone_learn_over_a_base_that_stays(bits):
    family = small("llava", std=0.05)
    stage = Stage("s", "answers", "", {"language": 2e-2}, steps=40, batch=4, lora=Lora(rank=8, base=bits))
    losses = []
    for step in train(family, Four(True), stage):
        losses.append(step.loss)
        if step.number == 1:
            before = {n: t.clone() for n, t in family.model.state_dict().items() if ".lora_" not in n}
    assert losses[-1] < 0.9 * losses[0]
    now = family.model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert all(m.lora_b.abs().max() > 0 for m in adapters(family.model).values())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_saved_adapters_are_read_back_over_the_whole_base(name, bits, tmp_path):
    small(name).save(tmp_path / "base")
    family = quantised(bits, name)
    expected = family.language(IDS)
    family.save(tmp_path / "adapter")
    loaded = pm.load(tmp_path / "base", adapter=tmp_path / "adapter")
    ours, theirs = adapters(loaded.model), adapters(family.model)
    assert ours.keys() == theirs.keys()
    for path, adapter in ours.items():
        assert type(adapter) is LoraLinear
        torch.testing.assert_close(adapter.lora_b @ adapter.lora_a, theirs[path].lora_b @ theirs[path].lora_a)
    for path, adapter in theirs.items():  # over the base that they learned over, what they say is the same
        ours[path].weight.data = dequantise(*adapter._beneath())
    torch.testing.assert_close(loaded.language(IDS), expected, rtol=1e-4, atol=1e-4)


def test_merged_it_says_the_same(bits, tmp_path):
    family = quantised(bits)
    expected = family.language(IDS)
    family.merge().save(tmp_path / "merged")
    torch.testing.assert_close(pm.load(tmp_path / "merged").language(IDS), expected, rtol=1e-4, atol=1e-4)


def test_a_plan_leaves_the_weights_as_they_are(bits):
    family = small("llava")
    before = {n: p.clone() for n, p in family.model.named_parameters()}
    make_plan(family, [Stage("s", "answers", "", {"language": 1e-3}, 1, 2, lora=Lora(base=bits))], [Four(True)])
    assert all(torch.equal(p, before[n]) for n, p in family.model.named_parameters())


def test_without_the_extra_it_is_told(monkeypatch):
    plain = builtins.__import__

    def without(name, *given):
        if name.startswith("bitsandbytes"):
            raise ImportError(name)
        return plain(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(pm.InputError, match=r"pip install 'panmodal\[quantized\]'"):
        small("llama").adapt(base="nf4")
