"""The shape of the library itself: who imports whom, how long files are, how light an import is."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from panmodal.transformer import TransformerConfig

SOURCE = Path(__file__).parents[1] / "src" / "panmodal"

# Each layer may import itself and those before it.
LAYERS = [
    {"errors"},
    {"visibility"},
    {"embeddings", "data"},
    {"transformer", "cache"},
    {"language", "encoder_decoder", "foreign", "encoders", "connectors", "quick", "quantised"},
    {"lora"},
    {"generators"},
    {"checkpoints", "generate"},
    {"families"},
    {"playground", "prompting"},
    {"training", "evaluation", "inference"},
    {"cli", "__main__"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def part(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("panmodal."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("panmodal.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    for other in imported(path):
        assert RANK[other] <= RANK[part(path)], f"{path.relative_to(SOURCE)} may not import {other}"


def test_no_family_imports_another():
    shared = {"base", "chat"}
    for path in (SOURCE / "families").glob("*.py"):
        if path.stem != "__init__":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("panmodal.families."):
                    assert node.module.split(".")[2] in shared, f"{path.name} imports {node.module}"


def test_files_are_short():
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in modules()}
    assert lengths["transformer.py"] < 260
    assert {name: n for name, n in lengths.items() if n >= 400} == {}


def test_the_configuration_is_small():
    assert len(fields(TransformerConfig)) <= 20


def test_import_is_light():
    """`import panmodal` and the command line's help import neither torch nor anything optional."""
    heavy = "{'torch', 'numpy', 'PIL', 'tokenizers', 'transformers', 'pydantic', 'jinja2', 'huggingface_hub'}"
    for what in ("import panmodal", "import panmodal.cli"):
        code = f"import sys; {what}; print(sorted({heavy} & sys.modules.keys()))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_no_code_from_strings():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), path
