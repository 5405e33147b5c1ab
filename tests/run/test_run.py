"""One answer: the same bytes whatever the workers, the order, the interruptions; and in memory as on a cluster."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from simexm import simulate
from simexm.api import Simulation
from simexm.jobs.bitmap import Bitmap
from simexm.jobs.local_cluster import local_client
from simexm.planning.plan import Plan
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run.worker import Context, run_block
from simexm.store.pyramid import downsample_labels, downsample_mean, step_factors
from simexm.version import FORMAT_VERSION
from tests.run.conftest import VOXEL_NM, fingerprint, spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_client(2, dashboard=False) as started:
        yield started


@pytest.fixture(scope="module")
def reference(stored: Path, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An undisturbed run with two workers, with everything kept."""
    return kept(stored).run(tmp_path_factory.mktemp("reference") / "small.zarr", client=client, quiet=True)


def slow(stored: Path) -> Simulation:
    """The same in tiles so small that a run lasts long enough to be interrupted."""
    return kept(stored).with_tile((3, 24, 24))


@pytest.fixture(scope="module")
def slow_reference(stored: Path, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return slow(stored).run(tmp_path_factory.mktemp("slow") / "small.zarr", client=client, quiet=True)


def kept(stored: Path) -> Simulation:
    few = {"crop": {"shape": [36, 72, 88]}, "execution": {"min_blocks": 8}}
    return Simulation.from_mapping(spec(stored, keep=["expected", "labelled", "emitters"], **few))


def copied(result: Result, folder: Path) -> Result:
    """A copy, to be spoilt."""
    for each in (result.place.zarr, result.place.run):
        shutil.copytree(each, folder / each.name)
    return Result.open(folder / result.path.name)


def whole(result: Result, of: str = "", level: int = 0) -> NDArray[Any]:
    """All of one array."""
    return np.asarray(result.array(level, of)[...])


@pytest.mark.parametrize(
    "workers", [None, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.release)]
)
def test_workers_change_no_byte(reference: Result, stored: Path, tmp_path: Path, workers: int | None) -> None:
    """Threads of this process, one worker, or four, against the two of the reference."""
    result = kept(stored).run(tmp_path / "small.zarr", workers=workers, quiet=True)
    assert len(fingerprint(reference.path)) > 100
    assert fingerprint(result.path) == fingerprint(reference.path)
    for table in ("cells.parquet", "emitters"):
        a, b = reference.place.tables / table, result.place.tables / table
        assert (fingerprint(a) == fingerprint(b)) if a.is_dir() else a.read_bytes() == b.read_bytes()


def test_the_spec_in_the_output_is_all_that_is_needed_and_order_changes_no_byte(
    reference: Result, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = Bitmap.missing

    def shuffled(self: Bitmap, stop: int) -> Iterator[int]:
        numbers = list(in_order(self, stop))
        random.Random(3).shuffle(numbers)
        return iter(numbers)

    monkeypatch.setattr(Bitmap, "missing", shuffled)
    again = Simulation.from_mapping(reference.provenance["spec"])
    assert again.plan().hash == reference.provenance["hash"]
    result = again.run(tmp_path / "small.zarr", client=client, quiet=True)
    assert fingerprint(result.path) == fingerprint(reference.path)


def test_in_memory_is_the_same(reference: Result, labels: NDArray[np.uint64], stored: Path) -> None:
    found = simulate(labels, kept(stored), voxel_size_nm=VOXEL_NM)
    np.testing.assert_array_equal(found.image, whole(reference))
    for name in ("cells", "membrane", "cytosol"):
        np.testing.assert_array_equal(found.labels[name], whole(reference, f"labels/{name}"))
    for name in ("expected", "labelled"):
        np.testing.assert_array_equal(found.kept[name], whole(reference, name))
    table = reference.cells()
    for column in table.column_names:
        np.testing.assert_array_equal(found.cells[column], table[column].to_numpy(zero_copy_only=False))
    emitters = reference.emitters()
    assert emitters.num_rows == found.emitters["z_nm"].size > 1000
    for column in ("z_nm", "cell", "dyes"):
        np.testing.assert_array_equal(np.sort(found.emitters[column]), np.sort(emitters[column].to_numpy()))


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_resumes(slow_reference: Result, stored: Path, tmp_path: Path) -> None:
    slow(stored).save(tmp_path / "small.yaml")
    command = [sys.executable, "-m", "simexm.cli", "run", "small.yaml", "-q"]
    journal = tmp_path / "small.run" / "journal"
    process = subprocess.Popen(
        [*command, "--workers", "1"], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(journal.glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "type the same command again" in errors
    assert "Traceback" not in errors
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    assert fingerprint(tmp_path / "small.zarr") == fingerprint(slow_reference.path)


def test_a_block_can_be_run_again(reference: Result, stored: Path, tmp_path: Path) -> None:
    """Twice the same block, or a damaged one made again, leaves what a first run would."""
    result = copied(reference, tmp_path)
    plan = kept(stored).plan()
    where = Place(result.path)
    where.scratch.mkdir()
    shard = next((result.path / "0" / "c").rglob("*"), None)
    for number in (0, len(plan.blocks) - 1):
        for level in range(result.levels()):
            position = "/".join(map(str, plan.blocks.position(number)))
            damaged = result.path / str(level) / "c" / "0" / position
            if plan.volumes.storage[level].owned and damaged.exists():
                damaged.write_bytes(b"damaged")
        run_block(Context(plan, where), number)
    assert shard is not None
    assert fingerprint(result.path) == fingerprint(reference.path)


def test_a_block_that_became_empty_leaves_no_shard(stored: Path, tmp_path: Path, client: Any) -> None:
    """A rerun that yields only zeros deletes what an earlier run wrote there."""
    simulation, until = Simulation.from_mapping(spec(stored)), "labelling"  # without noise, which leaves no zeros
    result = simulation.run(tmp_path / "small.zarr", client=client, until=until, quiet=True)
    plan = simulation.plan(until=until)
    where = Place(result.path)
    where.scratch.mkdir()
    before = fingerprint(result.path)
    empty = result.path / "labels" / "cytosol" / "0" / "c"
    shards = {str(p.relative_to(empty)) for p in empty.rglob("*") if p.is_file()}
    positions = {"/".join(map(str, plan.blocks.position(n))) for n in range(len(plan.blocks))}
    assert positions - shards
    for position in positions - shards:
        (empty / position).parent.mkdir(parents=True, exist_ok=True)
        (empty / position).write_bytes(b"left over")
    for number in range(len(plan.blocks)):
        run_block(Context(plan, where), number)
    assert fingerprint(result.path) == before


def test_missing_shards_are_made_again(reference: Result, stored: Path, tmp_path: Path, client: Any) -> None:
    """The journal alone proves nothing: resume looks at the disk, too."""
    simulation, result = kept(stored), copied(reference, tmp_path)
    attributes = json.loads((result.path / "zarr.json").read_text())
    attributes["attributes"]["simexm"] = {
        "hash": simulation.plan().hash,
        "format": FORMAT_VERSION,
        "status": "incomplete",
    }
    (result.path / "zarr.json").write_text(json.dumps(attributes))
    lost = [
        *sorted(p for p in (result.path / "0" / "c").rglob("*") if p.is_file())[:2],
        *sorted(p for p in (result.path / "labels" / "cells" / "1" / "c").rglob("*") if p.is_file())[2:4],
        *sorted((result.place.tables / "cells.parts").iterdir())[5:7],
        *sorted((result.place.tables / "emitters").iterdir())[:1],
        *sorted(p for p in (result.path / str(result.levels() - 1) / "c").rglob("*") if p.is_file())[:1],
    ]
    tables = fingerprint(result.place.tables)
    for path in lost:
        path.unlink()
    where = Place(result.path)
    where.scratch.mkdir(exist_ok=True)
    simulation.run(tmp_path / "small.zarr", client=client, quiet=True)
    assert fingerprint(result.path) == fingerprint(reference.path)
    assert fingerprint(result.place.tables) == tables


def test_levels_agree_with_level_0(reference: Result, stored: Path) -> None:
    plan: Plan = kept(stored).plan()
    assert len(plan.levels) >= 3
    for path in ("", "expected", "labels/cells", "labels/membrane"):
        is_labels = path.startswith("labels")
        above = whole(reference, path)
        for n in range(1, len(plan.levels)):
            factors = step_factors(plan.levels[n - 1], plan.levels[n])
            if is_labels:
                expected: NDArray[Any] = downsample_labels(above, factors)
            else:
                expected = np.stack([downsample_mean(c, factors) for c in above])
            found = whole(reference, path, n)
            np.testing.assert_array_equal(found, expected)
            above = found


def test_validates_and_opens_elsewhere(reference: Result) -> None:
    import tensorstore
    from ome_zarr.io import parse_url  # type: ignore[import-untyped]
    from ome_zarr.reader import Reader  # type: ignore[import-untyped]
    from ome_zarr_models.v05 import Image
    from ome_zarr_models.v05.image_label import ImageLabel
    from ome_zarr_models.v05.labels import Labels

    root: Any = zarr.open_group(reference.path, mode="r")
    image = Image.from_zarr(root)
    assert [a.name for a in image.attributes.ome.multiscales[0].axes] == ["c", "z", "y", "x"]
    Labels.from_zarr(root["labels"])
    for name in reference.label_names:
        label = ImageLabel.from_zarr(root["labels"][name])
        assert len(label.attributes.ome.multiscales[0].datasets) == reference.levels()
    Image.from_zarr(root["expected"])
    opened = tensorstore.open(
        {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(reference.path / "0")}}
    ).result()
    np.testing.assert_array_equal(opened[...].read().result(), whole(reference))
    nodes = list(Reader(parse_url(str(reference.path)))())
    assert nodes[0].data[0].shape == reference.array().shape


def test_image_and_labels_share_one_transform(reference: Result) -> None:
    root = json.loads((reference.path / "zarr.json").read_text())["attributes"]
    image = root["ome"]["multiscales"][0]["datasets"]
    for name in reference.label_names:
        label = json.loads((reference.path / "labels" / name / "zarr.json").read_text())["attributes"]
        for a, b in zip(image, label["ome"]["multiscales"][0]["datasets"], strict=True):
            for t, u in zip(a["coordinateTransformations"], b["coordinateTransformations"], strict=True):
                assert t[t["type"]][1:] == u[u["type"]]
    scale, translation = (t[t["type"]] for t in image[0]["coordinateTransformations"])
    assert scale[1:] == [0.1125, 0.040625, 0.040625]
    assert translation[1:] == [s / 2 for s in scale[1:]]


def test_windows_and_colours(reference: Result) -> None:
    image = whole(reference)
    for channel, data in zip(reference.channels, np.asarray(image), strict=True):
        assert data.min() <= channel["window"]["start"] < channel["window"]["end"] <= 2 * data.max()
    green, red = (c["color"] for c in reference.channels)
    assert int(green[2:4], 16) > int(green[:2], 16)
    assert int(red[:2], 16) > int(red[2:4], 16)


def test_run_folder(reference: Result) -> None:
    names = {p.name for p in reference.place.run.iterdir()}
    assert names == {"plan.json", "files.json", "source.json", "journal", "tables", "preview.png", "log.txt"}
    assert {p.name for p in reference.path.iterdir()} == {
        *map(str, range(reference.levels())), "labels", "expected", "labelled", "zarr.json",
    }  # fmt: skip


def test_until_stops_after_a_stage(reference: Result, stored: Path, tmp_path: Path, client: Any) -> None:
    expected = kept(stored).run(tmp_path / "e.zarr", client=client, until="confocal", quiet=True)
    np.testing.assert_array_equal(whole(expected), whole(reference, "expected"))
    labelled = kept(stored).run(tmp_path / "l.zarr", client=client, until="labelling", quiet=True)
    np.testing.assert_array_equal(whole(labelled), whole(reference, "labelled"))
    assert [c["label"] for c in labelled.channels] == ["membrane", "cytosol"]
