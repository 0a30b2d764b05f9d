"""What goes wrong while a model is trained: nothing is lost, and it is said what it was."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.kills import RECIPE, compare, free_port, start
from PIL import Image as Pil

import panmodal as pm
from panmodal.data.formats import open_data
from panmodal.errors import CheckpointError, InputError, TrainingError
from panmodal.training import Stage, Step, read_recipe, run_recipe, train
from panmodal.training.stages import NextToken
from panmodal.training.state import whole
from tests.families.small import small


@pytest.fixture
def recipe(tmp_path):
    def write(name="out", steps=12):
        path = tmp_path / f"{name}.toml"
        path.write_text(RECIPE.format(out=tmp_path / name, steps=steps))
        return path

    return write


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([p.flatten() for p in pm.load(folder).model.parameters()])


@pytest.mark.parametrize(("ranks", "times"), [(1, 5), (2, 2)])
def test_killed_at_random_it_ends_as_in_peace(ranks, times, tmp_path):
    """More of it: `python -m benchmarks.kills`"""
    killed, same = compare(tmp_path, times, ranks)
    assert same and killed == times


def test_the_second_run_in_a_folder_is_refused(recipe, tmp_path):
    path = recipe(steps=10**6)
    (process,) = start(path, 1)
    log, deadline = tmp_path / "out" / "log.jsonl", time.monotonic() + 600
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    for restart in (False, True):
        with pytest.raises(InputError, match="another run, still alive, writes to"):
            run_recipe(path, quiet=True, restart=restart)
    assert log.stat().st_size
    process.kill()
    process.join()
    run_recipe(recipe(), quiet=True, restart=True)  # its lock went with it


def test_who_is_left_alone_says_so_in_a_line(recipe, tmp_path):
    """Of two processes one is killed; torchrun would show what the other says, too."""
    path, log = recipe(steps=10**6), tmp_path / "out" / "log.jsonl"
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "panmodal", "train", str(path), "--json"]
    two = [
        subprocess.Popen(
            command, env=os.environ | told | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    deadline = time.monotonic() + 600
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    two[1].kill()
    said = two[0].communicate(timeout=600)[1].strip().splitlines()
    assert two[0].returncode == 1 and said[-1].startswith("panmodal: another process of the run has ended")
    assert not any("Traceback" in line for line in said)


def test_a_full_disk_leaves_the_state_before(recipe, tmp_path, monkeypatch):
    save, limit = Step.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def short(step, folder):
        if step.number > 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        save(step, folder)

    monkeypatch.setattr(Step, "save", short)
    try:
        with pytest.raises(CheckpointError, match="cannot write to .*out.*make room, and run the same command"):
            run_recipe(recipe(), quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    states = tmp_path / "out" / "states" / "0-words"
    assert [state.name for state in states.iterdir()] == ["step-0000003"] and whole(states / "step-0000003")
    monkeypatch.undo()
    run_recipe(recipe(), quiet=True)
    run_recipe(recipe("peace"), quiet=True)
    assert torch.equal(weights(tmp_path / "out" / "model"), weights(tmp_path / "peace" / "model"))


def test_a_loss_that_is_not_finite_names_its_samples_and_keeps_the_last_good_state(recipe, tmp_path, monkeypatch):
    loss, calls = NextToken.loss, []

    def broken(self, model, batch):
        calls.append(len(batch.ids))
        return loss(self, model, batch) * (torch.nan if len(calls) > 4 else 1)

    monkeypatch.setattr(NextToken, "loss", broken)
    with pytest.raises(TrainingError) as told:
        run_recipe(read_recipe(recipe(), ["stages.0.pack=false"]), quiet=True)
    assert "for 5 steps, the last of them 9, of the samples 32, 33, 34, 35 of playground/text" in str(told.value)
    states = tmp_path / "out" / "states" / "0-words"
    assert [state.name for state in states.iterdir()] == ["step-0000003"] and whole(states / "step-0000003")


def test_missing_and_broken_pictures_are_left_out_by_name(tmp_path):
    Pil.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "black.png").read_bytes()[:40])
    shown = {17: "torn.png", 118: "missing.png"}
    lines = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": shown.get(i, "black.png")}}]},
                {"role": "assistant", "content": "black"},
            ]
        }
        for i in range(240)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    stage = Stage("s", "answers", "", {"connector": 1e-3}, steps=30, batch=8)
    *_, last = train(small("llava"), open_data(tmp_path / "data.jsonl"), stage, seed=1)
    assert last.skipped == 2
    reasons = " ".join(last.run.position.skipped)
    assert "torn.png" in reasons and "missing.png" in reasons


def test_two_processes_that_are_asked_to_stop_save_together_and_one_goes_on(recipe, tmp_path):
    """As torchrun starts them"""
    path, log = recipe(steps=80), tmp_path / "out" / "log.jsonl"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    together = subprocess.Popen(
        [*command, "-m", "panmodal", "train", str(path), "--json", "--set", "parallel=fsdp"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    together.send_signal(signal.SIGTERM)
    _, told = together.communicate(timeout=120)
    assert told.count("run the same command to go on") == 1
    done = log.read_text().count("\n")
    assert 3 < done < 80 and whole(tmp_path / "out" / "states" / "0-words" / f"step-{done:07d}")
    run_recipe(path, quiet=True)
    run_recipe(recipe("peace", 80), quiet=True)
    torch.testing.assert_close(weights(tmp_path / "out/model"), weights(tmp_path / "peace/model"), atol=2e-4, rtol=0)
