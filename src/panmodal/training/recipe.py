"""Recipes: a TOML file that says which model, from what, through which stages, and where to.

A recipe maps one to one onto the classes below; an unknown key is an error that names the nearest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from panmodal.errors import InputError, suggest
from panmodal.lora import Lora
from panmodal.training.preference import Preference
from panmodal.training.stages import PRESETS, Stage
from panmodal.training.world import Parallel


@dataclass(frozen=True)
class ModelSpec:
    """Where the model comes from, in one of three ways.

    `load`: a checkpoint by name. `config`: an untrained model of a published configuration, with a
    `tokenizer` ("playground", "playground/new-words", or a checkpoint that has one), an `image_processor` and a
    `chat_template` as needed; with `vision`, its image encoder and image processor are that model's, and ImageBind
    takes over the `towers` of a CLIP, if one is named. `vision` with `vision_layer` and `frames`, or `audio`, or both,
    `connector` and `language`: composed of these; see `compose`.
    `words` get a token each, which a model that converses may spell in pieces so far; see `Chat.add_words`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    load: str | None = None
    config: dict[str, Any] | None = None
    tokenizer: str | None = None
    image_processor: dict[str, Any] | None = None
    chat_template: str | None = None
    towers: str | None = None
    vision: str | None = None
    vision_layer: int = -2
    frames: int = 0
    audio: str | None = None
    connector: str | dict[str, Any] = "mlp"
    language: str | ModelSpec | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watch:
    """The first `count` samples of `data`, whose answers go to `OUT/answers.html` whenever a state is saved."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    data: str
    count: int = 4


@dataclass(frozen=True)
class Recipe:
    """A model, its stages, and the folder `out` that the run writes to: states to resume from, a
    log, a picture of the loss, and at the end the model, stored in `dtype`. `parallel` says what several
    processes, as torchrun starts them, do with the model: each keeps it whole ("ddp") or holds a share ("fsdp")."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    out: str
    model: ModelSpec
    stages: tuple[Stage, ...]
    seed: int = 0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    save_every: int = 500  # steps
    parallel: Parallel = "ddp"
    watch: Watch | None = None
    tensorboard: bool = False  # writes events to `OUT/events`


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Reads a recipe; `changes` are `key=value`, the key dotted (`stages.0.steps=10`), the value in
    TOML or else a string. Raises InputError that names the key and what it should be."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    for change in changes:
        _apply(content, change)
    stages = content.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"{path} needs [[stages]] tables")
    content["stages"] = [_with_preset(stage, path) for stage in stages]
    try:
        recipe: Recipe = TypeAdapter(Recipe).validate_python(content)
    except ValidationError as error:
        raise InputError(f"{path}: {_explained(error)}") from None
    return recipe


def same_run(recipe: Recipe, note: Any) -> bool:
    """Whether a run noted as `note`, by this version or one before, would do the same. How several processes share
    the work does not count, nor what is told of it."""
    try:
        noted: Recipe = TypeAdapter(Recipe).validate_python(note)
    except ValidationError:
        return False
    return replace(noted, parallel=recipe.parallel, watch=recipe.watch, tensorboard=recipe.tensorboard) == recipe


def _with_preset(stage: dict[str, Any], path: Path) -> dict[str, Any]:
    if "kind" not in stage:
        return stage
    kind = stage["kind"]
    if kind not in PRESETS:
        raise InputError(f"{path}: a stage has the unknown kind {kind!r}{suggest(str(kind), PRESETS)}")
    return {"name": kind, **PRESETS[kind], **{k: v for k, v in stage.items() if k != "kind"}}


def _explained(error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(step) for step in first["loc"] if step not in ("ModelSpec", "str")]
    if first["type"] == "unexpected_keyword_argument":
        tables: dict[str, Any] = {"lora": Lora, "prefer": Preference, "stages": Stage, "model": ModelSpec}
        kind = next((tables[step] for step in reversed(place[:-1]) if step in tables), Recipe)
        return f"unknown key {'.'.join(place)!r}{suggest(place[-1], [f.name for f in fields(kind)])}"
    if first["type"] == "missing":
        return f"{'.'.join(place)!r} is missing"
    return f"{'.'.join(place)!r}: {first['msg']}, and it is {str(first['input'])[:60]!r}"


def _apply(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals:
        raise InputError(f"--set takes key=value, not {change!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *path, last = key.strip().split(".")
    place: Any = content
    try:
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[int(last) if isinstance(place, list) else last] = parsed
    except (ValueError, IndexError, TypeError, AttributeError):
        raise InputError(f"--set {key}: the recipe has no such place") from None
