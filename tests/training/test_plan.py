"""What a training is going to do: parts, rates and memory, told before it starts."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

import panmodal as pm
from panmodal.lora import Lora
from panmodal.training.plan import make_plan, show_plan
from panmodal.training.recipe import read_recipe
from panmodal.training.run import SOURCES, run_recipe
from panmodal.training.stages import Stage
from tests.families.small import small

CAPTIONS = SOURCES["playground/captions"]
ALIGN = Stage("align", "answers", "playground/captions", {"connector": 1e-3}, 2, 2)
INSTRUCT = Stage("instruct", "answers", "playground/captions", {"connector": 1e-3, "language": 1e-4}, 2, 2)
ADAPT = Stage("adapt", "answers", "playground/captions", {"language": 1e-4}, 2, 2, lora=Lora(rank=2))


def test_parts_rates_and_memory():
    family = small("llava")
    before = {name: p.clone() for name, p in family.model.named_parameters()}
    random = torch.get_rng_state()
    plan = make_plan(family, [ALIGN, INSTRUCT, ADAPT], [CAPTIONS] * 3)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p, before[name]) for name, p in family.model.named_parameters())
    sizes = {part: sum(p.numel() for p in getattr(family.model, part).parameters()) for part in plan.parts}
    assert plan.parts == sizes and plan.weights == 4 * sum(sizes.values())
    align, instruct, adapt = plan.stages
    assert align.trained == {"connector": (sizes["connector"], (1e-3,))}
    assert align.optimiser == 12 * sizes["connector"]
    assert instruct.trained["language"] == (sizes["language"], (1e-4,))
    blocks = family.model.language.body.blocks
    each = sum(2 * (m.in_features + m.out_features) for m in blocks.modules() if isinstance(m, torch.nn.Linear))
    assert adapt.trained == {"language": (each, (1e-4,))}
    assert 0 < align.activations < instruct.activations


def test_activations_are_those_that_the_batch_keeps():
    """Twice as many conversations of one length keep twice as much."""

    class One:
        size = None

        def sample(self, number):
            return CAPTIONS.sample(0)

    kept = [
        make_plan(small("llava"), [Stage("s", "answers", "", {"all": 1e-3}, 1, n)], [One()]).stages[0].activations
        for n in (2, 4)
    ]
    assert kept[1] / kept[0] == pytest.approx(2, rel=0.1)


def test_the_table():
    text = io.StringIO()
    show_plan(make_plan(small("llava"), [ALIGN, ADAPT], [CAPTIONS] * 2), Console(file=text, width=100))
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert lines[0] == ["part", "parameters", "align", "adapt"]
    encoder, connector, language, memory = lines[1:5]
    assert encoder[0] == "encoder" and encoder[2:] == ["frozen", "frozen"]
    assert connector[2:] == ["0.001", "frozen"]
    assert language[2] == "frozen" and language[4:] == ["at", "0.0001"]
    assert memory[0] == "memory" and memory[-1] == "MB"


def test_data_that_is_missing_later_is_told_at_once(tmp_path):
    small("llava").save(tmp_path / "model")
    recipe = tmp_path / "recipe.toml"
    stage = 'objective = "answers"\nrates = { connector = 1e-3 }\nsteps = 1\nbatch = 1\n'
    recipe.write_text(
        f'name = "x"\nout = "{tmp_path / "out"}"\n[model]\nload = "{tmp_path / "model"}"\n'
        f'[[stages]]\nname = "a"\ndata = "playground/captions"\n{stage}'
        f'[[stages]]\nname = "b"\ndata = "nowhere.jsonl"\n{stage}'
    )
    with pytest.raises(pm.InputError, match="no data 'nowhere.jsonl'"):
        run_recipe(read_recipe(recipe), quiet=True)
    assert not (tmp_path / "out" / "states").exists()
