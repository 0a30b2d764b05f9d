from __future__ import annotations

import pytest
import torch
from torch import nn

import panmodal as pm
import panmodal.quick
from panmodal.playground import make_scene, questions, render
from panmodal.quick import FEW, MANY, NATIVE, QuickLinear, quicken
from tests.families.small import small


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(300, 200, bias=bias)


BFLOAT16 = pytest.mark.skipif(not NATIVE, reason="this CPU does not multiply bfloat16")


@pytest.fixture(params=[False, pytest.param(True, marks=BFLOAT16)])
def native(request, monkeypatch):
    monkeypatch.setattr(panmodal.quick, "NATIVE", request.param)
    return request.param


@BFLOAT16
def test_bfloat16_is_near():
    plain = linear()
    quick = QuickLinear(plain)
    with torch.inference_mode():
        for shape, size in (((1, 300), 1.0), ((3, 40, 300), 1e-3), ((MANY + 1, 300), 1e6)):
            x = torch.randn(shape) * size
            assert (quick(x) - plain(x)).abs().max() < 8e-3 * plain(x).abs().max()


@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_are_near_and_more_rows_equal(bias, monkeypatch):
    monkeypatch.setattr(panmodal.quick, "NATIVE", False)
    plain = linear(bias)
    quick = QuickLinear(plain)
    with torch.inference_mode():
        for rows, size in ((1, 1.0), (FEW, 1e-3), (FEW, 1e6)):  # 1e6 is beyond float16
            x = torch.randn(rows, 300) * size
            exact = plain(x)
            assert not torch.equal(quick(x), exact)
            assert (quick(x) - exact).abs().max() < 2e-3 * x.abs().max()
        for rows in (FEW + 1, 100, MANY):
            x = torch.randn(rows // 5, 5, 300)
            assert quick(x).shape == (rows // 5, 5, 200)
            torch.testing.assert_close(quick(x), plain(x))
        many = torch.randn(MANY + 1, 300)
        assert torch.equal(quick(many), plain(many))
        assert quick(torch.zeros(1, 300)).isfinite().all()


def test_the_copy_follows_the_weight(native):
    quick = QuickLinear(linear(bias=False))
    x = torch.randn(FEW + 1, 300)
    with torch.inference_mode():
        quick(x), quick(x[:1])
    with torch.no_grad():
        quick.weight.mul_(3)
    with torch.inference_mode():
        assert (quick(x) - x @ quick.weight.T).abs().max() < 5e-2
        assert (quick(x[:1]) - x[:1] @ quick.weight.T).abs().max() < 5e-2
    quick(x).sum().backward()  # learning goes through the float32 weight
    assert quick.weight.grad is not None


def test_a_quickened_model_is_saved_and_tied_as_before(tmp_path):
    chat = small("llava")
    before = chat.model.state_dict()
    chat.quicken()
    after = chat.model.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)
    assert chat.language.head.weight is chat.language.embed.vectors.weight
    chat.save(tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in pm.load(tmp_path).model.state_dict().items())
    quicken(chat.model)
    assert isinstance(chat.model.connector.up, QuickLinear)


def test_the_built_in_model_says_the_same(native):
    plain, quick = pm.load("tiny/chat"), pm.load("tiny/chat").quicken()
    for seed in range(8):
        scene = make_scene(seed, "test")
        for text in ("Describe the picture.", *(q.text for q in questions(scene, 3))):
            asked = [pm.user(pm.Image(render(scene)), text)]
            assert quick.reply(asked, max_tokens=40) == plain.reply(asked, max_tokens=40)
