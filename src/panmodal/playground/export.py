"""Writing scenes to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from panmodal.data.masks import to_rle
from panmodal.data.sounds import to_wav
from panmodal.playground.questions import questions
from panmodal.playground.render import boxes, masks, render
from panmodal.playground.sound import RATE, depth, sound
from panmodal.playground.speech import TRIES
from panmodal.playground.words import LEVELS, caption, full_name, one
from panmodal.playground.world import Scene, make_scene

SHOWN = 48  # scenes in the overview


def export(out: Path, count: int, split: str, size: int, seed: int, progress: Callable[[int, int], None]) -> None:
    """Writes `count` scenes to a folder.

    `data.jsonl` has a line a scene: `messages` (a conversation about the picture, to train on), its
    captions, questions (with kind, program and rationale), objects and their masks. `masks/` has for each scene a
    picture whose pixels say which object is seen there, counted from 1; 0 is the background. `sounds/`
    has what it sounds like, and `depth/` how far away it is, in millimetres.
    """
    for folder in ("pictures", "masks", "sounds", "depth"):
        (out / folder).mkdir(parents=True)
    with (out / "data.jsonl").open("w", encoding="utf-8") as lines:
        for done in range(count):
            scene = make_scene(seed + done, split)
            name = f"{scene.seed:06d}.png"
            Image.fromarray(render(scene, size)).save(out / "pictures" / name)
            shown = masks(scene, size)
            numbered = (shown * np.arange(1, len(shown) + 1)[:, None, None]).sum(0)
            Image.fromarray(np.uint8(numbered)).save(out / "masks" / name)
            Image.fromarray(depth(scene, size)).save(out / "depth" / name)
            heard = f"sounds/{scene.seed:06d}.wav"
            (out / heard).write_bytes(to_wav(sound(scene), RATE))
            about = {**describe(scene, f"pictures/{name}", size), "sound": heard, "depth": f"depth/{name}"}
            lines.write(json.dumps(about) + "\n")
            progress(done + 1, count)
    _overview(out, min(count, SHOWN), split, seed)


def export_llava(
    out: Path, count: int, split: str, size: int, seed: int, kind: str, progress: Callable[[int, int], None]
) -> None:
    """Writes `count` pictures, and a conversation about each of questions of one kind, as LLaVA's data have them:
    `data.json` and `pictures/`. Scenes that such questions cannot be asked about are left out."""
    (out / "pictures").mkdir(parents=True)
    records: list[dict[str, Any]] = []
    while len(records) < count:
        scene = make_scene(seed, split)
        seed += 1
        asked = questions(scene, TRIES, kinds=(kind,))
        if not asked:
            continue
        name = f"pictures/{scene.seed:06d}.png"
        Image.fromarray(render(scene, size)).save(out / name)
        turns = [{"from": who, "value": said} for q in asked for who, said in (("human", q.text), ("gpt", q.answer))]
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
        records.append({"id": f"{scene.seed:06d}", "image": name, "conversations": turns})
        progress(len(records), count)
    (out / "data.json").write_text(json.dumps(records, indent=1), encoding="utf-8")


def describe(scene: Scene, picture: str, size: int) -> dict[str, Any]:
    """All that is known of a scene, as JSON."""
    asked = questions(scene, TRIES)
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": picture}}]
    messages = []
    for question in asked:
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question.text}]})
        messages.append({"role": "assistant", "content": question.answer})
        shown = []
    found = zip(scene.objects, boxes(scene, size).tolist(), strict=True)
    return {
        "messages": messages,
        "seed": scene.seed,
        "split": scene.split,
        "background": scene.background,
        "objects": [{**asdict(thing), "box": box, "phrase": one(full_name(thing))} for thing, box in found],
        "masks": [to_rle(mask) for mask in masks(scene, size)],
        "captions": {level: caption(scene, level) for level in LEVELS},
        "questions": [asdict(question) for question in asked],
    }


def _overview(out: Path, count: int, split: str, seed: int, side: int = 160, columns: int = 8) -> None:
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (side + 8) + 8, rows * (side + 8) + 8), (120, 120, 120))
    for i in range(count):
        at = 8 + (i % columns) * (side + 8), 8 + (i // columns) * (side + 8)
        sheet.paste(Image.fromarray(render(make_scene(seed + i, split), side)), at)
    sheet.save(out / "overview.png")
