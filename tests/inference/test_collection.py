"""Collections: what is made of each picture, where they come from, what is left out, and going on."""

from __future__ import annotations

import shutil
import sys
import tarfile

import pytest
import torch
from PIL import Image as Pil
from pyarrow import parquet

import panmodal as pm
from panmodal.data.masks import from_rle
from panmodal.inference import collection
from panmodal.inference.collection import Work, part_file, run
from panmodal.playground import make_scene, render
from tests.families.small import small


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("clip", "blip", "sam"):
        small(name).save(folder / name)
    return folder


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Five, one of them broken, in parts of two"""
    monkeypatch.setattr(collection, "PART", 2)
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i in range(4):
        Pil.fromarray(render(make_scene(i), 32)).save(folder / ("more" if i == 3 else "") / f"{i}.png")
    (folder / "1b.png").write_bytes(b"no picture")
    return folder


def rows(out):
    return [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]


def test_embeddings_of_a_folder(models, pictures, tmp_path):
    work, out = Work("embed", str(models / "clip"), {}), tmp_path / "out"
    told = run(work, [str(pictures)], out)
    assert (told["pictures"], told["done"]) == (5, 4) and list(told["failed"].values()) == [1]
    found = rows(out)
    assert [row["name"] for row in found] == [
        str(pictures / n) for n in ("0.png", "1.png", "1b.png", "2.png", "more/3.png")
    ]
    assert found[2]["embedding"] is None and "1b.png" in found[2]["error"]
    family = pm.load(models / "clip")
    for row in (found[0], found[4]):
        expected = family.embed([pm.Image(row["name"])])[0]
        torch.testing.assert_close(torch.tensor(row["embedding"]), expected, rtol=0, atol=1e-5)
        assert row["error"] is None


def test_tars_and_lists_are_read_as_folders_are(models, pictures, tmp_path):
    from pyarrow import table

    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for file in sorted(pictures.glob("[02].png")):
            tar.add(file, file.name)
    parquet.write_table(table({"image": ["pictures/0.png", "pictures/2.png"]}), tmp_path / "list.parquet")
    work = Work("embed", str(models / "clip"), {})
    for source, name in (("shard-{000..000}.tar", "tar"), ("list.parquet", "list")):
        run(work, [str(tmp_path / source)], tmp_path / name)
    run(work, [str(pictures)], tmp_path / "folder")
    plain = {row["name"].rpartition("/")[2]: row["embedding"] for row in rows(tmp_path / "folder")}
    for name in ("tar", "list"):
        found = rows(tmp_path / name)
        assert [row["name"].rpartition("/")[2] for row in found] == ["0.png", "2.png"]
        for row in found:
            torch.testing.assert_close(
                torch.tensor(row["embedding"]), torch.tensor(plain[row["name"].rpartition("/")[2]])
            )


def test_captions_and_masks(models, pictures, tmp_path):
    run(Work("caption", str(models / "blip"), {"max_tokens": 6}), [str(pictures)], tmp_path / "said")
    first = rows(tmp_path / "said")[0]
    assert first["caption"] == pm.load(models / "blip").caption(pm.Image(pictures / "0.png"), max_tokens=6)
    options = {"points_per_side": 2, "min_score": -9.0, "min_stability": -1.0}
    run(Work("segment", str(models / "sam"), options), [str(pictures / "0.png")], tmp_path / "cut")
    ((row),) = rows(tmp_path / "cut")
    expected = pm.load(models / "sam").segment_everything(pm.Image(pictures / "0.png"), **options)
    assert len(row["masks"]) == len(expected) > 0
    assert torch.equal(from_rle(row["masks"][0]), expected[0].mask) and row["masks"][0]["area"] == expected[0].area


def test_a_run_goes_on_with_what_is_missing(models, pictures, tmp_path, monkeypatch):
    work, out = Work("embed", str(models / "clip"), {}), tmp_path / "out"
    run(work, [str(pictures)], out)
    kept = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert len(kept) == 3
    (gone,) = (file for file in kept if "000001" in file.name)
    before = gone.read_bytes()
    gone.unlink()
    told = run(work, [str(pictures)], out)
    assert told["done"] == 1 and sum(told["failed"].values()) == 1
    assert gone.read_bytes() == before
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items() if file != gone)
    with pytest.raises(pm.InputError, match="made of other pictures, or in another way"):
        run(work, [str(pictures / "0.png")], out)
    with pytest.raises(pm.InputError, match="made of other pictures, or in another way"):
        run(Work("embed", str(models / "blip"), {}), [str(pictures)], out)


def test_other_weights_do_not_go_on(models, pictures, tmp_path):
    shutil.copytree(models / "clip", tmp_path / "clip")
    work, out = Work("embed", str(tmp_path / "clip"), {}), tmp_path / "out"
    run(work, [str(pictures)], out)
    changed = pm.load(tmp_path / "clip")
    next(changed.model.parameters()).data.add_(1)
    changed.save(tmp_path / "clip")
    assert run(work, [str(pictures)], out)["done"] == 0
    part_file(out, 1).unlink()
    with pytest.raises(pm.InputError, match="holds what other weights of .*clip made"):
        run(work, [str(pictures)], out)


def test_ray_makes_the_same(models, pictures, tmp_path):
    ray = pytest.importorskip("ray", reason="ray (the extra 'ray') is not installed")
    work = Work("embed", str(models / "clip"), {})
    alone = run(work, [str(pictures)], tmp_path / "alone")
    try:
        told = run(work, [str(pictures)], tmp_path / "ray", "ray", workers=2)
        assert told["done"] == 0 + alone["done"] and told["failed"] == alone["failed"]
        assert run(work, [str(pictures)], tmp_path / "ray", "ray")["done"] == 0
    finally:
        ray.shutdown()
    for mine, theirs in zip(rows(tmp_path / "alone"), rows(tmp_path / "ray"), strict=True):
        assert mine["name"] == theirs["name"] and mine["error"] == theirs["error"]
        if mine["embedding"]:
            torch.testing.assert_close(torch.tensor(mine["embedding"]), torch.tensor(theirs["embedding"]))


def test_what_cannot_be_read(tmp_path, models):
    from pyarrow import table

    (tmp_path / "empty").mkdir()
    work = Work("embed", str(models / "clip"), {})
    with pytest.raises(pm.InputError, match="has no pictures in it"):
        run(work, [str(tmp_path / "empty")], tmp_path / "out")
    parquet.write_table(table({"label": [1]}), tmp_path / "list.parquet")
    with pytest.raises(pm.InputError, match="has the columns label; one of image, .*path must name"):
        run(work, [str(tmp_path / "list.parquet")], tmp_path / "out")


def test_a_missing_library_is_told_before_any_work(models, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(pm.InputError, match="Parquet needs `pip install 'panmodal\\[hf\\]'`"):
        run(Work("embed", str(models / "clip"), {}), [str(pictures)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
