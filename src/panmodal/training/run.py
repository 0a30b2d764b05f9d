"""Running a recipe: builds the model, goes through the stages, resumes where a run was stopped."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from panmodal.checkpoints.hub import locate
from panmodal.checkpoints.store import read_sidecars, write_json
from panmodal.data.formats import open_data
from panmodal.data.readers import Source
from panmodal.errors import InputError, suggest
from panmodal.families import Binding, Chat, Family, compose, family_of, load
from panmodal.playground import hallucinations, new_words, speech, statements
from panmodal.training.journal import Journal
from panmodal.training.loop import train
from panmodal.training.mixture import Joined, Mixture
from panmodal.training.plan import make_plan, show_plan
from panmodal.training.recipe import ModelSpec, Recipe, read_recipe, same_run
from panmodal.training.report import Answers, write_card
from panmodal.training.stages import Stage
from panmodal.training.state import room_on_disk, whole
from panmodal.training.world import World, joined

STATES_KEPT = 2
LOCK = "lock"


class Playground:
    """An endless source: a sample for every seed."""

    size = None

    def __init__(self, sample: Callable[[int], Any]) -> None:
        self.sample = sample


SOURCES: dict[str, Source] = {
    "playground/captions": Playground(speech.caption_sample),
    "playground/singles": Playground(speech.single_sample),
    "playground/matches": Playground(speech.match_sample),
    "playground/regions": Playground(speech.region_sample),
    "playground/digits": Playground(speech.digit_sample),
    "playground/segments": Playground(speech.segment_sample),
    "playground/lookups": Playground(partial(speech.instruction_sample, kinds=speech.ONE)),
    "playground/hard": Playground(partial(speech.instruction_sample, kinds=speech.HARDEST)),
    "playground/conversations": Playground(speech.instruction_sample),
    "playground/thoughts": Playground(speech.thought_sample),
    **{
        f"playground/multi-step/{way}": Playground(partial(speech.multi_step_sample, way=way))
        for way in ("direct", "thoughts", "two-stage")
    },
    "playground/preferences": Playground(hallucinations.preference_sample),
    "playground/unbalanced": Playground(hallucinations.unbalanced_sample),
    "playground/box": Playground(statements.box_sample),
    "playground/statements": Playground(statements.statement_sample),
    "playground/statements-text": Playground(partial(statements.statement_sample, shown=False)),
    "playground/audio_pairs": Playground(speech.audio_sample),
    "playground/sounds": Playground(speech.sound_sample),
    "playground/depth_pairs": Playground(speech.depth_sample),
    "playground/text": Playground(speech.text_sample),
    **{name: Playground(sample) for name, sample in new_words.SAMPLES.items()},
}
TOKENIZERS = {"playground": speech.tokenizer, "playground/new-words": new_words.tokenizer}


class Stopped(Exception):
    """The run was asked to stop; its state is saved."""


def run_recipe(
    recipe: Recipe | str | os.PathLike[str],
    *,
    device: str = "cpu",
    workers: int = 0,
    restart: bool = False,
    quiet: bool = False,
) -> Family[Any]:
    """Runs a recipe, or goes on with a run of the same recipe that was stopped; returns the model.

    Each stage leaves its model in `OUT/stages/NAME`, the last also in `OUT/model`; one with `lora` its adapters in
    `OUT/adapters/NAME`, which in the model are merged.
    SIGTERM and SIGINT end the run after the step in progress, its state saved (a second one at
    once). `workers` processes make batches, which leaves their order as it is. `restart` throws away
    what an earlier run left. Under torchrun its processes run the recipe together. Raises InputError if the
    folder is in use, and CheckpointError if the disk is full; what was saved before stays whole.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(Path(recipe))
    out = Path(recipe.out)
    with joined(recipe.parallel, device) as (world, place), room_on_disk(out), _held(out, world):
        if world.lead:
            _claim(out, recipe, restart)
        torch.manual_seed(recipe.seed)
        family = build(recipe.model).to(place)
        family.name = recipe.name
        sources = [open_source(stage.data) for stage in recipe.stages]  # missing ones are told before hours of training
        if not quiet:  # made by all, for some losses are made together
            show_plan(
                make_plan(family, recipe.stages, sources, recipe.seed), Console(stderr=True, quiet=not world.lead)
            )
        watched = (
            Answers(open_source(recipe.watch.data), recipe.watch.count, out)
            if recipe.watch is not None and world.parallel == "ddp"
            else None
        )
        with _stoppable() as stopping:
            for i, (stage, source) in enumerate(zip(recipe.stages, sources, strict=True)):
                states = out / "states" / f"{i}-{stage.name}"
                journal = Journal(out, stage, quiet, recipe.tensorboard) if world.lead else None
                _run_stage(family, stage, source, recipe, states, journal, watched, stopping, workers, world)
                if stage.lora is not None:
                    assert isinstance(family, Chat)
                    family.base = str(out / "stages" / recipe.stages[i - 1].name) if i else recipe.model.load or ""
                    _save(family, out / "adapters" / stage.name, recipe, world)
                    family.merge()
                _save(family, out / "stages" / stage.name, recipe, world)
        _save(family, out / "model", recipe, world)
        if world.lead:
            write_card(recipe, out)
        return family if world.size == 1 or world.parallel == "ddp" else load(out / "model")


def open_source(data: str | Sequence[str] | Mapping[str, float]) -> Source:
    """A data set by name (`playground/…`), file, folder or pattern of files (see `data.formats`); or several, one
    after the other, or mixed by their weights."""
    if not isinstance(data, str):
        sources = [open_source(name) for name in data]
        return Mixture(sources, list(data.values())) if isinstance(data, Mapping) else Joined(sources)
    if data in SOURCES:
        return SOURCES[data]
    if not Path(data).expanduser().exists() and not set("*?{") & set(data):
        raise InputError(f"no data {data!r}: not a file here{suggest(data, SOURCES)}")
    return open_data(data)


def build(spec: ModelSpec | str) -> Family[Any]:
    """The model that a recipe starts from."""
    if isinstance(spec, str):
        return load(spec)  # type: ignore[no-any-return]
    if spec.words:
        family = build(replace(spec, words=()))
        if not isinstance(family, Chat):
            raise InputError(f"words are for a model that converses, not {type(family).__name__}")
        return family.add_words(spec.words)
    given = [key for key in ("load", "config", "language") if getattr(spec, key)]
    if len(given) != 1:
        raise InputError("a recipe's model needs exactly one of load, config, or vision or audio with language")
    if spec.load:
        return build(spec.load)
    if spec.config:
        kind = family_of(spec.config)
        if spec.towers is not None:
            if kind is not Binding:
                raise InputError(f"{kind.__name__} takes over no towers; imagebind does")
            return Binding.upon(build(spec.towers), spec.config, _files(spec))
        if spec.vision is None:
            return kind.fresh(spec.config, _files(spec))
        vision = build(spec.vision)
        tower, seen = vision.image_tower()
        files = {**_files(spec), "preprocessor_config.json": json.dumps(vision.checkpoint.image_processor).encode()}
        family = kind.fresh({**spec.config, "vision_config": seen}, files)
        family.image_tower()[0].load_state_dict(tower.state_dict())
        return family
    assert spec.language is not None
    eyes, ears = (None if part is None else build(part) for part in (spec.vision, spec.audio))
    language = build(spec.language)
    return compose(eyes, spec.connector, language, spec.vision_layer, audio=ears, frames=spec.frames)


def _files(spec: ModelSpec) -> dict[str, bytes]:
    """The small files beside an untrained model's weights."""
    files: dict[str, bytes] = {}
    if spec.tokenizer in TOKENIZERS:
        files |= TOKENIZERS[spec.tokenizer]().to_files()
    elif spec.tokenizer:
        files |= {k: v for k, v in read_sidecars(locate(spec.tokenizer)).items() if "processor" not in k}
    if spec.image_processor:
        files["preprocessor_config.json"] = json.dumps(spec.image_processor).encode()
    if spec.chat_template:
        files["chat_template.jinja"] = spec.chat_template.encode()
    return files


def _run_stage(
    family: Family[Any],
    stage: Stage,
    source: Source,
    recipe: Recipe,
    states: Path,
    journal: Journal | None,
    watched: Answers | None,
    stopping: Callable[[], bool],
    workers: int,
    world: World,
) -> None:
    if world.lead:
        for torn in states.glob(".*.new"):  # what a killed run was writing
            shutil.rmtree(torn)
    found = (s for s in states.glob("step-*") if world.lead and whole(s))
    saved = world.gather(max(found, default=None))[0]
    with journal or nullcontext():
        for step in train(family, source, stage, seed=recipe.seed, resume=saved, workers=workers, world=world):
            stop = any(world.gather(stopping()))  # who was asked first, the others do not know
            due = step.number % recipe.save_every == 0 and math.isfinite(step.loss)  # keeps the last good state
            if due or stop or step.number == stage.steps:
                step.save(states / f"step-{step.number:07d}")
                for old in sorted(states.glob("step-*"))[:-STATES_KEPT] if world.lead else ():
                    shutil.rmtree(old)
                if watched is not None and world.lead:
                    watched.write(family, stage.name, step.number)
            if journal is not None:
                journal.write(step)
            if stop:
                raise Stopped(f"stopped after step {step.number} of {stage.name}; run the same command to go on")


def _save(family: Family[Any], folder: Path, recipe: Recipe, world: World) -> None:
    with world.whole(family.model):
        if world.lead:
            family.save(folder, getattr(torch, recipe.dtype))


@contextmanager
def _held(out: Path, world: World) -> Iterator[None]:
    """A folder that no other run may write to meanwhile; the lock goes with the process, however it ends."""
    refusal = ""
    with ExitStack() as stack:
        if world.lead:
            out.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((out / LOCK).open("a+"))
            try:
                if sys.platform != "win32":  # where nothing keeps two runs apart
                    import fcntl

                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                refusal = f"another run, still alive, writes to {out}; wait for it or stop it, or name another out"
        if refusal := world.gather(refusal)[0]:
            raise InputError(refusal)
        yield


def _claim(out: Path, recipe: Recipe, restart: bool) -> None:
    """Notes which recipe a folder belongs to, and refuses one that belongs to another; `restart` empties it."""
    note, content = out / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    if restart and note.exists():
        for item in out.iterdir():
            if item.is_dir():
                shutil.rmtree(item)
            elif item.name != LOCK:
                item.unlink()
    if note.exists():
        if not same_run(recipe, json.loads(note.read_text())):
            raise InputError(f"{out} holds a run of another recipe; name another out, or throw it away with --restart")
        return
    write_json(note, content)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Notes a signal to stop, instead of dying of it; a second one kills as usual."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        asked.append(number)
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)

    try:
        for watched in (signal.SIGTERM, signal.SIGINT):
            before[watched] = signal.signal(watched, note)
    except ValueError:  # not in the main thread, where signals cannot be caught
        pass
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
