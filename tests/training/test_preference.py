"""Preferences: the losses against their formulas, the reference, and what is learned."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

import panmodal as pm
from panmodal.data.sample import Batch, Sample, assistant, user
from panmodal.lora import Lora, adapters, adapters_off
from panmodal.playground.hallucinations import preference_sample
from panmodal.training import Stage, read_recipe, run_recipe, train
from panmodal.training.preference import Preference, corrected, log_probs, with_and_without
from tests.families.small import SEERS, small

DPO, IPO, DENSE = (Preference(kind, beta=0.5, gamma=5.0) for kind in ("dpo", "ipo", "dense"))


class Preferred:
    size = 4

    def sample(self, index):
        return preference_sample(index)


def batch_of(family, samples, objective=DPO):
    return objective.batch(family.processor, [objective.encode(family.processor, sample) for sample in samples])


def adapted(name="llava", std=0.3):
    """With adapters that do something and are all that is trained."""
    family = small(name).adapt(rank=4)
    for parameter in family.model.parameters():
        parameter.requires_grad_(False)
    for adapter in adapters(family.model).values():
        torch.nn.init.normal_(adapter.lora_b, std=std)
        for parameter in (adapter.lora_a, adapter.lora_b):
            parameter.requires_grad_(True)
    return family


def answer_log_probs(family, messages, answer):
    """Of an answer alone after its prompt, token by token."""
    encoded = family.processor.encode([*messages, assistant(answer)])
    batch = family.processor.batch([encoded])
    hidden = family.model.read(replace(batch, labels=None))
    logits = family.language.logits(hidden)[0, :-1].log_softmax(-1)
    ids, last = batch.ids[0, 1:], encoded.learned[::-1].index(False)  # tokens of the last turn
    return logits.gather(-1, ids[:, None])[-last:, 0], ids[-last:].tolist()


@pytest.mark.parametrize("name", [*SEERS, "gpt2", "mpt", "gpt_neox"])
@torch.no_grad()
def test_answers_in_one_row_are_as_likely_as_each_in_its_own(name):
    """Though they share a picture and a prompt, of several turns, and rows differ in length."""
    family = small(name)
    samples = [preference_sample(seed) for seed in range(4)]
    samples[1] = replace(samples[1], messages=(user("Is there a star?"), assistant("no"), *samples[1].messages))
    if name not in SEERS:
        samples = [replace(s, messages=tuple(replace(m, parts=m.parts[-1:]) for m in s.messages)) for s in samples]
    batch = batch_of(family, samples)
    if batch.images is not None:
        assert len(batch.images) == 4 or batch.sizes is not None
    found = log_probs(family.model.read(batch), batch, family.language.logits)
    for row, turns, sample in zip(found, batch.pad, samples, strict=True):
        assert not row[turns < 2].any()
        for turn, which in ((2, "chosen"), (3, "rejected")):
            expected, _ = answer_log_probs(family, sample.messages, sample.about[which])
            torch.testing.assert_close(row[turns == turn], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", [DPO, IPO, DENSE, replace(DPO, sft=0.7)], ids=lambda o: f"{o.kind}-{o.sft}")
def test_losses_are_their_formulas(objective):
    family = adapted()
    samples = [preference_sample(seed) for seed in range(3)]
    expected = []
    with torch.no_grad():
        for sample in samples:
            scores = []
            said = {w: answer_log_probs(family, sample.messages, sample.about[w]) for w in ("chosen", "rejected")}
            with adapters_off(family.model):
                before = {w: answer_log_probs(family, sample.messages, sample.about[w])[0] for w in said}
            for which, (tokens, ids) in said.items():
                if objective.kind == "dpo":
                    scores.append(tokens.sum() - before[which].sum())
                elif objective.kind == "ipo":
                    scores.append(tokens.mean() - before[which].mean())
                else:  # RLHF-V: a mean in which corrected tokens count five times
                    other = said["rejected" if which == "chosen" else "chosen"][1]
                    same = common(ids, other)
                    weights = torch.tensor([1.0 if i in same else 5.0 for i in range(len(ids))])
                    scores.append((weights * (tokens - before[which])).sum() / weights.sum())
            ahead = (scores[0] - scores[1]).item()
            compared = (ahead - 1 / (2 * 0.5)) ** 2 if objective.kind == "ipo" else math.log1p(math.exp(-0.5 * ahead))
            expected.append(compared - objective.sft * said["chosen"][0].mean().item())
    loss, told = objective.told(family.model, batch_of(family, samples))
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert told.keys() == {"reward_margin", "reward_accuracy"}
    assert objective.loss(family.model, batch_of(family, samples)).item() == pytest.approx(loss.item())


def common(ids, other):
    """The places of the tokens that both answers share: in these samples, the longest stretch at the beginning and that
    at the end."""
    head = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), min(len(ids), len(other)))
    room = min(len(ids), len(other)) - head
    tail = next((i for i in range(room) if ids[-1 - i] != other[-1 - i]), room)
    return {*range(head), *range(len(ids) - tail, len(ids))}


def test_segments_that_were_corrected():
    """chosen: a b c d; rejected: a x y c e d"""
    ids = torch.tensor([[9, 1, 2, 3, 4, 1, 7, 8, 3, 5, 4, 0], [9, 9, 1, 2, 6, 6, 6, 0, 0, 0, 0, 0]])
    turns = torch.tensor([[1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 0], [1, 1, 2, 2, 3, 3, 3, 0, 0, 0, 0, 0]])
    found = corrected(Batch(ids, turns)).int().tolist()
    assert found == [[0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]]


def test_dense_with_gamma_one_is_the_mean():
    family = adapted()
    batch = batch_of(family, [preference_sample(0)])
    tokens = torch.randn(batch.ids.shape)
    torch.testing.assert_close(
        Preference("dense", gamma=1.0).scores(batch, tokens), Preference("ipo").scores(batch, tokens)
    )


@pytest.mark.parametrize("name", SEERS)
@torch.no_grad()
def test_the_reference_is_the_untouched_model_to_the_last_bit(name):
    family, untouched = adapted(name), small(name)
    batch = batch_of(family, [preference_sample(seed) for seed in range(3)])
    expected = log_probs(untouched.model.read(batch), batch, untouched.language.logits)
    now, before = with_and_without(family.model.train(), batch)
    assert torch.equal(before, expected) and not torch.allclose(now, expected, atol=0.1)


def test_a_picture_is_encoded_once_for_both_answers_and_the_reference():
    family, seen = adapted(), []
    family.model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    DPO.loss(family.model, batch_of(family, [preference_sample(seed) for seed in range(3)]))
    assert seen == [3]


def test_it_begins_at_log_two_and_only_adapters_learn():
    family = adapted(std=0.0)
    loss = DPO.loss(family.model, batch_of(family, [preference_sample(seed) for seed in range(3)]))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    loss.backward()
    reached = {name for name, p in family.model.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in family.model.named_parameters() if ".lora_" in n}
    assert any(p.grad.abs().max() > 0 for p in family.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("prefer", [DPO, Preference("ipo", beta=1.0), DENSE], ids=lambda o: o.kind)
def test_the_chosen_comes_to_be_preferred(prefer):
    family = small("llava")
    stage = Stage("s", "prefer", "", {"language": 1e-2}, steps=15, batch=4, lora=Lora(rank=4), prefer=prefer)
    steps = [step.log() for step in train(family, Preferred(), stage)]
    assert steps[0]["reward_margin"] == 0 and steps[-1]["reward_margin"] > 0.3
    assert steps[-1]["reward_accuracy"] == 1 and steps[-1]["loss"] < 0.6 * steps[0]["loss"]


@pytest.mark.parametrize("more", [{}, {"lora": Lora(), "rates": {"language": 1e-3, "connector": 1e-3}}])
def test_without_adapters_or_with_more_than_these_there_is_no_reference(more):
    stage = Stage(
        **{"name": "s", "objective": "prefer", "data": "", "rates": {"all": 1e-3}, "steps": 1, "batch": 2, **more}
    )
    with pytest.raises(pm.InputError, match="needs adapters, and nothing else that is trained"):
        list(train(small("llava"), Preferred(), stage))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "texts chosen and rejected"),
        ({"chosen": "yes", "rejected": 1}, "texts chosen and rejected"),
        ({"chosen": "yes", "rejected": "yes"}, "chosen and rejected are the same: 'yes'"),
    ],
)
def test_samples_without_a_preference(about, message):
    with pytest.raises(pm.InputError, match=message):
        DPO.encode(small("llava").processor, Sample(preference_sample(0).messages, about))


def test_a_conversation_that_ends_with_the_assistant_has_no_prompt():
    sample = preference_sample(0)
    with pytest.raises(pm.InputError, match="ends with the user"):
        DPO.encode(small("llava").processor, replace(sample, messages=(*sample.messages, assistant("yes"))))


RECIPE = """
name = "r"
out = "{out}"
save_every = 2
[model]
load = "{base}"
[[stages]]
name = "tune"
objective = "answers"
data = "playground/unbalanced"
rates = {{ language = 1e-3, connector = 1e-3 }}
steps = 3
batch = 2
lora = {{ rank = 2, dropout = 0.1 }}
[[stages]]
name = "prefer"
objective = "prefer"
data = "playground/preferences"
rates = {{ language = 1e-2 }}
steps = 3
batch = 2
[stages.lora]
rank = 3
targets = ["q", "v"]
[stages.prefer]
kind = "dense"
beta = 0.5
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE.format(out=tmp_path / "out", base="tiny/chat"))
    return tmp_path / "r.toml"


def test_a_recipe_of_adapters(recipe, tmp_path):
    """Each stage leaves its adapters, for the model that it began with, and a model into which they are merged."""
    family = run_recipe(recipe, quiet=True)
    out, ids = tmp_path / "out", torch.randint(5, 300, (2, 9))
    bases = [json.loads((out / "adapters" / n / "adapter_config.json").read_text()) for n in ("tune", "prefer")]
    assert [c["base_model_name_or_path"] for c in bases] == ["tiny/chat", str(out / "stages" / "tune")]
    assert not adapters(family.model)
    for name in ("tune", "prefer"):
        merged, adapter = pm.load(out / "stages" / name), pm.load(out / "adapters" / name)
        torch.testing.assert_close(adapter.language(ids), merged.language(ids), rtol=1e-4, atol=1e-4)
    told = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert ["reward_margin" in line for line in told] == [False] * 3 + [True] * 3


def test_a_run_with_adapters_goes_on_where_it_was(recipe, tmp_path):
    family = run_recipe(recipe, quiet=True)
    weights = {n: p.clone() for n, p in family.model.named_parameters()}
    changed = read_recipe(recipe, [f"out={tmp_path / 'other'}"])
    stopped = replace(changed, stages=changed.stages[:1])
    run_recipe(stopped, quiet=True)
    (tmp_path / "other" / "recipe.json").unlink()
    for state in (tmp_path / "other" / "states").glob("*/step-0000003"):
        for file in state.iterdir():
            file.unlink()  # torn, so that the second step is gone on from
    again = run_recipe(changed, quiet=True)
    for name, parameter in again.model.named_parameters():
        assert torch.equal(parameter, weights[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stages.0.lora.rnk=3", "unknown key 'stages.0.lora.rnk'; did you mean 'rank'"),
        ("stages.1.prefer.bet=3", "unknown key 'stages.1.prefer.bet'; did you mean 'beta'"),
        ("stages.1.prefer.kind=dpp", "'stages.1.prefer.kind': Input should be 'dpo', 'ipo' or 'dense'"),
        ("stages.0.lora.rank=0", "rank must be at least 1"),
        ("stages.1.prefer.beta=0", "beta and gamma must be above 0"),
        ("stages.1.prefer.sft=-1", "sft at least 0"),
        ("stages.1.objective=answers", "has settings of `prefer`, and its objective is 'answers'"),
    ],
)
def test_recipes_that_cannot_be(recipe, change, message):
    with pytest.raises(pm.InputError, match=message):
        read_recipe(recipe, [change])


def test_the_sum_of_dpo_is_not_the_mean():
    """All tokens of a longer answer count."""
    batch = Batch(torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 2, 2, 3]]))
    tokens = torch.tensor([[0.0, -1.0, -2.0, -4.0]])
    assert DPO.scores(batch, tokens).tolist() == [[-3, -4]] and IPO.scores(batch, tokens).tolist() == [[-1.5, -4]]
