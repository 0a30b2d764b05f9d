from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).parents[2] / "shared"

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Real models, photographs and vocabularies, which lie beside the repository."""
    folder = SHARED / "fixtures"
    if not folder.is_dir():
        pytest.skip("../shared/fixtures is not here")
    return folder


@pytest.fixture(scope="session")
def nlvr_data() -> Path:
    """Two splits of NLVR, which lie beside the repository."""
    folder = SHARED / "datasets" / "nlvr"
    if not folder.is_dir():
        pytest.skip("../shared/datasets/nlvr is not here")
    return folder


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Callable[..., Result]:
    """Runs the command line as `panmodal …` would, in this process."""
    monkeypatch.setenv("PANMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: object) -> Result:
        from panmodal.cli import main

        monkeypatch.setattr(sys, "argv", ["panmodal", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run
