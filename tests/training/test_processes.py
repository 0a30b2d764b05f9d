"""Two processes that learn together: what they learn is what one does, and no fault leaves either waiting."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from panmodal.data.sample import Sample, assistant, user
from panmodal.errors import InputError, PanmodalError
from panmodal.training import Stage, train
from panmodal.training import stages as objectives
from panmodal.training.world import ALONE, dealt, joined
from tests.families.small import small
from tests.families.test_every_family import Four, scene_picture


class Mixed:
    """Conversations of unlike lengths, of which every fifth has a picture"""

    size = 40

    def __init__(self, pictured: bool = True) -> None:
        self.pictured = pictured

    def sample(self, index: int) -> Sample:
        shown = [scene_picture(index % 4)] if self.pictured and index % 5 == 0 else []
        return Sample((user(*shown, "what is it? " * (1 + index % 4)), assistant("a red star " * (1 + index % 7))))


class Broken(Four):
    """Pairs, of which one cannot be used"""

    size = 240

    def sample(self, index: int) -> Sample:
        if index == 7:
            raise InputError(f"line {index + 1}: broken")
        return self.samples[index % 4]


STAGE = Stage("s", "answers", "", {"all": 1e-3}, steps=20, batch=4, accumulate=2)
PAIRS = replace(STAGE, objective="contrastive", accumulate=1)
CASES = {
    "answers": ("llava", Mixed(), STAGE),
    "packed": ("llava", Mixed(), replace(STAGE, pack=64, checkpointing=True)),
    "flamingo": ("flamingo", Mixed(), replace(STAGE, steps=4, rates={"gates": 1e-3, "resampler": 1e-3})),
    "contrastive": ("clip", Four(True), PAIRS),
    "sigmoid": ("siglip", Four(True), replace(PAIRS, steps=4)),
    "average": ("llama", Mixed(False), replace(STAGE, steps=6, ema=0.9)),
    "broken": ("clip", Broken(True), replace(PAIRS, steps=60)),
}


def learn(case: str, world, resume: Path | None = None, save: Path | None = None, until: int = 0):
    """The losses of a case's steps, and its weights afterwards"""
    name, source, stage = CASES[case]
    family, losses = small(name, std=0.05), []
    for step in train(family, source, stage, resume=resume, world=world):
        losses.append(step.loss)
        if step.number == until:
            step.save(save)
            break
    with world.whole(family.model):
        weights = torch.cat([p.detach().flatten().clone() for p in family.model.parameters()])
    return losses, weights, step.skipped


def together(rank: int, ports: list[int], folder: Path) -> None:
    """What one of the two processes does"""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    found = {}
    for parallel, port in zip(("ddp", "fsdp"), ports, strict=True):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with joined(parallel, "cpu") as (world, _):
            for case in CASES:
                losses, weights, skipped = learn(case, world)
                found[f"{case} {parallel}"] = {"losses": losses, "skipped": skipped}
                if rank == 0:
                    torch.save(weights, folder / f"{case} {parallel}.pt")
            learn("packed", world, save=folder / f"two {parallel}", until=10)
            found[f"resumed {parallel}"] = {"losses": learn("packed", world, resume=folder / "one")[0]}
            loss = objectives.NextToken.loss
            if rank == 1:
                objectives.NextToken.loss = lambda *given, loss=loss: loss(*given) * torch.nan
            try:
                learn("answers", world)
            except PanmodalError as error:
                found[f"not finite {parallel}"] = {"error": str(error)}
            objectives.NextToken.loss = loss
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("two")
    learn("packed", ALONE, save=folder / "one", until=10)
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, other)]
    multiprocessing.spawn(together, (ports, folder), nprocs=2)
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_two_learn_what_one_does(case, parallel, two):
    folder, found = two
    losses, weights, skipped = learn(case, ALONE)
    for each in found:
        assert each[f"{case} {parallel}"]["skipped"] == skipped
        if not skipped:  # those that could be used meet in other batches
            assert each[f"{case} {parallel}"]["losses"] == pytest.approx(losses, abs=1e-5)
    if not skipped:
        # AdamW's first steps are of one size however small a gradient is, and its sign may be that of a rounding
        torch.testing.assert_close(torch.load(folder / f"{case} {parallel}.pt"), weights, atol=1e-3, rtol=0)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_state_fits_any_number_of_processes(parallel, two):
    folder, found = two
    losses, *_ = learn("packed", ALONE)
    assert learn("packed", ALONE, resume=folder / f"two {parallel}")[0] == pytest.approx(losses[10:], abs=1e-5)
    for each in found:
        assert each[f"resumed {parallel}"]["losses"] == pytest.approx(losses[10:], abs=1e-5)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_loss_that_is_not_finite_in_one_stops_both(parallel, two):
    for each in two[1]:
        assert "not been finite for 5 steps, the last of them 5" in each[f"not finite {parallel}"]["error"]


def test_samples_are_dealt_evenly():
    lengths = [90, 10, 80, 20, 70, 30, 60, 40]
    shares = [dealt(lengths, rank, 2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(8)) and len(shares[0]) == 4
    assert sum(lengths[i] for i in shares[0]) == sum(lengths[i] for i in shares[1])
    assert [dealt([0] * 4, rank, 2) for rank in range(2)] == [[0, 3], [1, 2]]
