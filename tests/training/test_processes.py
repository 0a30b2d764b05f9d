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
from panmodal.lora import Lora
from panmodal.training import Stage, train
from panmodal.training import stages as objectives
from panmodal.training.preference import Preference
from panmodal.training.world import ALONE, dealt, joined
from tests.families.small import small
from tests.families.test_every_family import Four, media, scene_picture


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

    size = 160

    def sample(self, index: int) -> Sample:
        if index == 7:
            raise InputError(f"line {index + 1}: broken")
        return self.samples[index % 4]


class Heard:
    """Conversations about nothing, a picture, a video or a sound, none of which every step has in both processes"""

    size = 40

    def sample(self, index: int) -> Sample:
        audio, video, *_ = media(index % 4)
        shown = [[], [scene_picture(index % 4)], [video], [audio], []][index % 5]
        return Sample((user(*shown, "what is it?"), assistant("a red star " * (1 + index % 3))))


class Preferred(Mixed):
    """Two answers to each of them"""

    def sample(self, index: int) -> Sample:
        asked, said = super().sample(index).messages
        return Sample((asked,), {"chosen": said.text, "rejected": "a blue circle " * (1 + index % 3)})


class Bound(Four):
    """Pictures, sounds, depth and texts"""

    def sample(self, index: int) -> Sample:
        others = [medium for medium in media(index % 4) if medium.kind in ("audio", "depth")]
        return Sample((user(scene_picture(index % 4), *others, f"number {'and ' * (index % 3)}{index % 3}"),))


class Missed(Four):
    """Pairs with near misses, but for one"""

    def sample(self, index: int) -> Sample:
        sample, near = self.samples[index % 4], {} if index == 3 else {"near_miss": "a red star"}
        return Sample(
            sample.messages, {**near, "objects": [{"box": [0, 0, 9 + index % 5, 20], "phrase": "a red star"}]}
        )


class Asked(Four):
    """Pictures, and one to three questions about each"""

    def sample(self, index: int) -> Sample:
        turns = [m for i in range(1 + index % 3) for m in (user(f"number {i}?"), assistant("a red star " * (i + 1)))]
        return Sample((user(scene_picture(index % 4), "what is it?"), assistant("a star"), *turns))


HANGS = 900  # seconds that neither takes
STAGE = Stage("s", "answers", "", {"all": 1e-3}, steps=20, batch=4, accumulate=2)
PAIRS = replace(STAGE, objective="contrastive", accumulate=1)
PREFERRED = replace(STAGE, objective="prefer", rates={"language": 1e-3}, lora=Lora(rank=2), steps=3)
CASES = {
    "answers": ("llava", Mixed(), STAGE),
    "packed": ("llava", Mixed(), replace(STAGE, pack=64, checkpointing=True)),
    "flamingo": ("flamingo", Mixed(), replace(STAGE, steps=4, rates={"gates": 1e-3, "resampler": 1e-3})),
    "contrastive": ("clip", Four(True), PAIRS),
    "sigmoid": ("siglip", Four(True), replace(PAIRS, steps=4)),
    "media": ("senses", Heard(), replace(STAGE, steps=3, accumulate=1, batch=6)),
    "blip": ("blip", Missed(True), replace(PAIRS, objective="blip", steps=4)),
    "vqa": ("blip-vqa", Asked(True), replace(PAIRS, objective="vqa", steps=4)),
    "representation": ("blip2-itm", Missed(True), replace(PAIRS, objective="representation", steps=3)),
    "regions": ("clip", Missed(True), replace(PAIRS, objective="contrastive_captioning", steps=3)),
    "anchored": ("imagebind", Bound(True), replace(PAIRS, objective="anchored", steps=3)),
    "masks": ("sam", Four(True), replace(PAIRS, objective="masks", steps=3)),
    "dpo": ("llava", Preferred(), PREFERRED),
    "ipo": ("llava", Preferred(), replace(PREFERRED, prefer=Preference("ipo", sft=0.5), batch=2)),
    "average": ("llama", Mixed(False), replace(STAGE, steps=6, ema=0.9)),
    "broken": ("clip", Broken(True), replace(PAIRS, steps=40)),
}


SHARDED = [case for case in CASES if case not in ("blip", "vqa")]  # those that run under FSDP


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
    """What one of the two processes does: together, and then, each half of it, alone"""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    found = {}

    def note(name: str, result) -> None:
        found[name] = {"losses": result[0], "skipped": result[2]}
        torch.save(result[1], folder / f"{rank} {name}.pt")

    if rank == 0:
        learn("packed", ALONE, save=folder / "one", until=10)
    for parallel, port in zip(("ddp", "fsdp"), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        with joined(parallel, "cpu") as (world, _):
            for case in CASES if parallel == "ddp" else SHARDED:
                note(f"{case} {parallel}", learn(case, world))
            learn("packed", world, save=folder / f"two {parallel}", until=10)
            note(f"one to {parallel}", learn("packed", world, resume=folder / "one"))
            loss = objectives.NextToken.loss
            if rank == 1:
                objectives.NextToken.loss = lambda *given, loss=loss: loss(*given) * torch.nan
            try:
                learn("answers", world)
            except PanmodalError as error:
                found[f"not finite {parallel}"] = {"error": str(error)}
            objectives.NextToken.loss = loss
    for i, case in enumerate(CASES):
        if i % 2 == rank:
            note(case, learn(case, ALONE))
    for parallel in ("ddp", "fsdp"):
        if rank == 0:
            note(f"{parallel} to one", learn("packed", ALONE, resume=folder / f"two {parallel}"))
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[Path, list[dict], dict]:
    """Where they wrote, what each found of what they did together, and what of what they did alone"""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, other)]
    running = multiprocessing.spawn(together, (ports, folder), nprocs=2, join=False)
    if not any(running.join(timeout=HANGS) for _ in range(2)):  # each waits for one of them
        for process in running.processes:
            process.kill()
        pytest.fail(f"the two processes have not come to an end in {2 * HANGS} seconds; one waits for the other")
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return folder, found, {**found[0], **found[1]}


@pytest.mark.parametrize(
    ("case", "parallel"), [*((case, "ddp") for case in CASES), *((case, "fsdp") for case in SHARDED)]
)
def test_two_learn_what_one_does(case, parallel, two):
    folder, found, alone = two
    for each in found:
        assert each[f"{case} {parallel}"]["skipped"] == alone[case]["skipped"]
        if not alone[case]["skipped"]:  # else those that could be used meet in other batches
            assert each[f"{case} {parallel}"]["losses"] == pytest.approx(alone[case]["losses"], abs=1e-5)
    if not alone[case]["skipped"]:
        expected = torch.load(folder / f"{list(CASES).index(case) % 2} {case}.pt")
        for rank in range(2):
            weights = torch.load(folder / f"{rank} {case} {parallel}.pt")
            # AdamW's first steps are of one size however small a gradient is: its sign may be that of a rounding
            torch.testing.assert_close(weights, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_state_fits_any_number_of_processes(parallel, two):
    _, found, alone = two
    expected = pytest.approx(alone["packed"]["losses"][10:], abs=1e-5)
    assert alone[f"{parallel} to one"]["losses"] == expected
    for each in found:
        assert each[f"one to {parallel}"]["losses"] == expected


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
