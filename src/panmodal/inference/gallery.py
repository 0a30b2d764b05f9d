"""A gallery: pictures and other media embedded once, and searched by text or medium."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from panmodal.data.index import cache_folder, replacing_file
from panmodal.data.media import Medium
from panmodal.data.sample import as_medium
from panmodal.errors import InputError
from panmodal.families import Family

TOGETHER = 64


class Gallery:
    """Embeddings of files, pictures or what else a model embeds.

    They are kept on disk, keyed by the file's content and the model's fingerprint (weights and
    preprocessing), so that a changed file or model is embedded anew.
    """

    def __init__(self, family: Family[Any], folder: Path | None = None) -> None:
        self.family = family
        self.file = (folder or cache_folder()) / "embeddings" / f"{family.fingerprint()}.safetensors"
        self.vectors: dict[str, Tensor] = _read(self.file)
        self.paths: dict[Path, str] = {}  # to the digest of the content

    def add(self, paths: Sequence[Path], progress: Callable[[int, int], None] = lambda done, of: None) -> list[str]:
        """Adds files, embedding what is new; returns why files were left out."""
        skipped: list[str] = []
        digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        new = {digest: path for path, digest in digests.items() if digest not in self.vectors}
        waiting = list(new.items())
        for start in range(0, len(waiting), TOGETHER):
            media = {}
            for digest, path in waiting[start : start + TOGETHER]:
                medium = as_medium(path)
                try:
                    medium.check()
                except InputError as error:
                    skipped.append(str(error))
                    continue
                media[digest] = medium
            if media:
                self.vectors |= zip(media, self.family.embed(list(media.values())), strict=True)  # type: ignore[attr-defined]
            progress(min(start + TOGETHER, len(waiting)), len(waiting))
        if waiting:
            _write(self.file, self.vectors)
        self.paths |= {path: digest for path, digest in digests.items() if digest in self.vectors}
        return skipped

    def search(self, query: Medium | str, top: int) -> list[tuple[Path, float]]:
        """The `top` files most like a text or a medium, with their cosines, best first."""
        if not self.paths:
            raise InputError("there is nothing to search through")
        wanted = self.family.embed([query])[0]  # type: ignore[attr-defined]
        scores = torch.stack([self.vectors[digest] for digest in self.paths.values()]) @ wanted
        best = scores.topk(min(top, len(scores)))
        paths = list(self.paths)
        return [(paths[i], s) for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            keys = json.loads(stored.metadata()["keys"])
            return dict(zip(keys, stored.get_tensor("vectors"), strict=True))
    except (OSError, SafetensorError, KeyError, ValueError):  # none yet, or damaged: embedded anew
        return {}


def _write(file: Path, vectors: dict[str, Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(file) as fresh:
        save_file({"vectors": torch.stack(list(vectors.values()))}, fresh, {"keys": json.dumps(list(vectors))})
