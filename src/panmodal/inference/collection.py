"""Big collections of pictures captioned, embedded or segmented into Parquet, part by part, on one machine or by Ray.

A part is a few hundred pictures, the unit of work: its file is written whole or not at all, so that a run that was
stopped goes on with the parts that are missing, and any engine may make them in any order.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from panmodal.checkpoints.store import write_json
from panmodal.data.archives import content, expanded, members
from panmodal.data.index import replacing_file
from panmodal.data.media import PICTURE_SUFFIXES, media_files
from panmodal.data.records import PICTURES
from panmodal.data.sample import Image
from panmodal.errors import InputError

PART = 256  # pictures
COLUMNS = (*PICTURES, "path")  # of a Parquet list, in which files are named


class Place(NamedTuple):
    """Where a picture is: in a file of its own, or in a tar, from `start` on, so many bytes long."""

    name: str
    path: str
    start: int = 0
    size: int = 0

    def read(self) -> Image:
        return Image(content(Path(self.path), self.start, self.size) if self.size else Path(self.path))


def places(inputs: Iterable[str]) -> list[Place]:
    """All pictures in folders, tars (patterns such as `{000..012}.tar` name several) and Parquet lists, which name
    files in a column such as `image` or `path`. Raises InputError where there is none."""
    found: list[Place] = []
    for one in inputs:
        before = len(found)
        for path in expanded(one):
            found += _of(path)
        if len(found) == before:
            raise InputError(f"{one} has no pictures in it")
    return found


def _of(path: Path) -> Iterator[Place]:
    if path.suffix == ".tar":
        inside = (member for member in members(path) if Path(member.name).suffix.lower() in PICTURE_SUFFIXES)
        yield from (Place(f"{path}/{member.name}", str(path), member.start, member.size) for member in inside)
    elif path.suffix == ".parquet":
        table = parquet().read_table(path)
        column = next((name for name in COLUMNS if name in table.column_names), None)
        if column is None:
            has, one = ", ".join(table.column_names), ", ".join(COLUMNS)
            raise InputError(f"{path} has the columns {has}; one of {one} must name the pictures' files")
        for name in table[column].to_pylist():
            yield Place(str(name), str(path.parent / str(name)))
    else:
        yield from (Place(str(file), str(file)) for file in media_files(path))


@dataclass(frozen=True)
class Work:
    """What is done to each picture: a verb of a model, with its options."""

    verb: str
    model: str
    options: Mapping[str, Any]
    device: str = "cpu"
    allow_pickle: bool = False


class Worker:
    """Makes parts; the model, unless it is given, is loaded with the first. Each part bears its fingerprint, and is not
    put beside one that another model made, though under the same name."""

    def __init__(self, work: Work, places: Sequence[Place], out: str, size: int, family: Any = None) -> None:
        self.work, self.places, self.out, self.size, self.family = work, places, Path(out), size, family
        self.made_by = ""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """{"part": number} -> with it how many pictures were done, and why others were not"""
        some = self.places[self.size * row["part"] : self.size * (row["part"] + 1)]
        rows: list[dict[str, Any]] = []
        for place in some:
            try:
                (image := place.read()).check()
                rows.append({"name": place.name, "image": image})
            except InputError as error:
                rows.append({"name": place.name, "error": str(error)})
        good = [row for row in rows if "image" in row]
        self.made_by = self.made_by or self._model().fingerprint()
        if _maker(self.out) not in (None, self.made_by):
            raise InputError(f"{self.out} holds what other weights of {self.work.model} made; name another folder")
        for one, told in zip(good, self._do([one.pop("image") for one in good]), strict=True):
            one.update(told)
        _write(part_file(self.out, row["part"]), rows, self.work.verb, self.made_by)
        reasons = Counter(one["error"] for one in rows if "error" in one)
        return {"part": row["part"], "done": len(good), "failed": json.dumps(reasons)}

    def _model(self) -> Any:
        if self.family is None:
            from panmodal.families import load

            self.family = load(self.work.model, device=self.work.device, allow_pickle=self.work.allow_pickle)
        return self.family

    def _do(self, images: list[Image]) -> Iterator[dict[str, Any]]:
        family, options = self._model(), dict(self.work.options)
        if self.work.verb == "caption":
            yield from ({"caption": said} for said in family.caption_all(images, **options))
        elif self.work.verb == "embed":
            yield from ({"embedding": vector.tolist()} for vector in family.embed(images))
        else:
            for image in images:
                found = family.segment_everything(image, **options)
                yield {"masks": [{"score": s.score, "area": s.area, "box": list(s.box), **s.rle} for s in found]}


def run(
    work: Work,
    inputs: Sequence[str],
    out: Path,
    engine: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, of: None,
    family: Any = None,
) -> dict[str, Any]:
    """Does what is missing of a collection into the folder `out`; returns how many pictures there are, how many were
    done now, and why others were not. `family` is the model, if it is loaded already; an engine's workers load their
    own. Raises InputError if the folder holds another collection or another work."""
    parquet()  # if it is not there, that is told before any work
    found = places(inputs)
    _claim(out, work, found)
    parts = -(-len(found) // PART)
    todo = [i for i in range(parts) if not part_file(out, i).exists()]
    worker = Worker(work, found, str(out), PART, family)
    done, reasons = 0, Counter[str]()
    rows = ({"part": i} for i in todo)
    for row in map(worker, rows) if engine is None else _by_ray(worker, todo, workers):
        done += row["done"]
        reasons += Counter(json.loads(row["failed"]))
        progress(done + sum(reasons.values()), len(found))
    return {"pictures": len(found), "done": done, "failed": dict(reasons.most_common()), "out": str(out)}


def _by_ray(worker: Worker, todo: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """Each of the workers is an actor with a model of its own, on a GPU of its own where the model is on one."""
    try:
        import ray.data
    except ImportError:
        raise InputError("--engine ray needs `pip install 'panmodal[ray]'`") from None
    if not todo:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus: dict[str, Any] = {"num_gpus": 1} if worker.work.device.startswith("cuda") else {}
    given = worker.work, worker.places, str(worker.out.absolute()), worker.size
    make: Any = Worker
    parts = ray.data.from_items([{"part": i} for i in todo], override_num_blocks=len(todo))
    yield from parts.map(make, fn_constructor_args=given, concurrency=workers, **gpus).iter_rows()


def part_file(out: Path, number: int) -> Path:
    return out / f"part-{number:06d}.parquet"


def _claim(out: Path, work: Work, found: Sequence[Place]) -> None:
    """Notes what a folder is for, and refuses one that is for something else."""
    digest = hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()
    note, told = out / "collection.json", {**asdict(work), "pictures": len(found), "digest": digest, "part": PART}
    told = json.loads(json.dumps({k: v for k, v in told.items() if k != "device"}))
    if note.exists():
        if json.loads(note.read_text()) != told:
            raise InputError(f"{out} holds what was made of other pictures, or in another way; name another folder")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(note, told)


def _maker(out: Path) -> str | None:
    """The fingerprint of the model that made what is in a folder, if anything is"""
    file = min(out.glob("part-*.parquet"), default=None)
    told = {} if file is None else parquet().read_schema(file).metadata or {}
    return told[b"model"].decode() if b"model" in told else None


def _write(file: Path, rows: list[dict[str, Any]], verb: str, made_by: str) -> None:
    import pyarrow as pa

    mask = pa.struct([
        ("score", pa.float32()), ("area", pa.int64()), ("box", pa.list_(pa.int32())), ("size", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int32())),
    ])  # fmt: skip
    kinds = {
        "caption": ("caption", pa.string()),
        "embed": ("embedding", pa.list_(pa.float32())),
        "segment": ("masks", pa.list_(mask)),
    }
    schema = pa.schema([("name", pa.string()), kinds[verb], ("error", pa.string())], {"model": made_by})
    with replacing_file(file) as fresh:
        parquet().write_table(pa.Table.from_pylist(rows, schema=schema), fresh)


def parquet() -> Any:
    try:
        from pyarrow import parquet as library
    except ImportError:
        raise InputError("Parquet needs `pip install 'panmodal[hf]'`, or 'panmodal[ray]'") from None
    return library
