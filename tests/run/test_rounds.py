"""Rounds of imaging from end to end: one image a round in one container, tables of truth, and barcodes read back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm import simulate
from simexm.analysis.barcodes.decode import decode
from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import exact3
from simexm.ingestion.ingest import ingest
from simexm.jobs.local_cluster import local_client
from simexm.result.place import Place
from simexm.result.result import Result
from tests.rounds_build import VOXEL_NM, cells, simulation
from tests.run.conftest import fingerprint

pytestmark = [
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]
SITES = [{"region": "cytosol", "density_per_um3": 25}, {"region": "membrane", "density_per_um3": 10}]
KEEP = ("expected", "labelled", "emitters")


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint64]:
    return cells((24, 60, 60), 8)


@pytest.fixture(scope="module")
def source(labels: NDArray[np.uint64], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("labels")
    tifffile.imwrite(folder / "cells.tif", labels, compression="zlib")
    ingest(folder / "cells.tif", folder / "cells.zarr", exact3(VOXEL_NM))
    return str(folder / "cells.zarr")


def experiment(source: str) -> Simulation:
    return simulation(source, KEEP, amplicons=SITES)


@pytest.fixture(scope="module")
def reference(source: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """An undisturbed run in this process, with everything kept."""
    return experiment(source).run(tmp_path_factory.mktemp("reference") / "rounds.zarr", quiet=True)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_client(2, dashboard=False) as started:
        yield started


def whole(result: Result, of: str = "", round: int | None = None) -> NDArray[Any]:
    return np.asarray(result.array(0, of, **({} if round is None else {"round": round}))[...])


def copied(result: Result, folder: Path) -> Result:
    """A copy, to be spoilt."""
    for each in (result.place.zarr, result.place.run):
        shutil.copytree(each, folder / each.name)
    return Result.open(folder / result.path.name)


# ---------------------------------------------------------------- one answer


@pytest.mark.slow
def test_workers_change_no_byte(reference: Result, source: str, tmp_path: Path, client: Any) -> None:
    result = experiment(source).run(tmp_path / "rounds.zarr", client=client, quiet=True)
    assert fingerprint(result.path) == fingerprint(reference.path)
    tables = fingerprint(result.place.tables)
    assert tables == fingerprint(reference.place.tables)
    assert {"cells.parquet", "barcodes.parquet", "amplicons/block-0000000.parquet"} <= set(tables)


def test_missing_pieces_are_made_again(reference: Result, source: str, tmp_path: Path) -> None:
    """Shards of any round, tables and coarse levels that are lost come back to the byte."""
    result = copied(reference, tmp_path)
    path = result.path / "zarr.json"
    text = json.loads(path.read_text())
    text["attributes"]["simexm"] |= {"status": "incomplete"}
    path.write_text(json.dumps(text))
    lost = [
        sorted(p for p in (result.path / "round_02" / "0" / "c").rglob("*") if p.is_file())[0],
        sorted(p for p in (result.path / "round_03" / "expected" / "0" / "c").rglob("*") if p.is_file())[-1],
        sorted((result.place.tables / "amplicons").iterdir())[1],
    ]
    for each in lost:
        each.unlink()
    experiment(source).run(result.path, quiet=True)
    assert fingerprint(result.path) == fingerprint(reference.path)
    assert fingerprint(result.place.tables) == fingerprint(reference.place.tables)


def test_in_memory_is_the_same(reference: Result, source: str, labels: NDArray[np.uint64]) -> None:
    found = simulate(labels, experiment(source), voxel_size_nm=VOXEL_NM)
    for n in range(3):
        np.testing.assert_array_equal(found.image[n], whole(reference, round=n + 1))
        for name in ("expected", "labelled"):
            np.testing.assert_array_equal(found.kept[name][n], whole(reference, name, n + 1))
    np.testing.assert_array_equal(found.labels["cells"], whole(reference, "labels/cells"))
    for mine, table in (
        (found.tables["barcodes"], reference.barcodes()),
        (found.tables["amplicons"], reference.amplicons()),
    ):
        assert list(mine) == table.column_names
        for name, values in mine.items():
            np.testing.assert_array_equal(values, table[name].to_numpy(zero_copy_only=False))
    assert len(found.emitters["z_nm"]) == reference.emitters().num_rows


# ---------------------------------------------------------------- what is in the container


def test_container_validates_and_opens_elsewhere(reference: Result) -> None:
    from ome_zarr.io import parse_url  # type: ignore[import-untyped]
    from ome_zarr.reader import Reader  # type: ignore[import-untyped]
    from ome_zarr_models.v05 import BioFormats2Raw, Image
    from ome_zarr_models.v05.image_label import ImageLabel
    from ome_zarr_models.v05.labels import Labels

    root: Any = zarr.open_group(reference.path, mode="r")
    BioFormats2Raw.from_zarr(root)
    series = dict(root["OME"].attrs)["ome"]["series"]
    assert series == ["round_01", "round_02", "round_03"]
    assert {p.name for p in reference.path.iterdir()} == {*series, "OME", "zarr.json"}
    for name in series:
        image = Image.from_zarr(root[name])
        assert [a.name for a in image.attributes.ome.multiscales[0].axes] == ["c", "z", "y", "x"]
        Image.from_zarr(root[name]["expected"])
        nodes = list(Reader(parse_url(str(reference.path / name)))())
        assert nodes[0].data[0].shape == reference.array().shape
    Labels.from_zarr(root["round_01"]["labels"])
    assert reference.label_names == ["cells", "stain"]
    for name in reference.label_names:
        ImageLabel.from_zarr(root["round_01"]["labels"][name])


def test_ome_xml_tells_of_each_round(reference: Result) -> None:
    """As the layout "bioformats2raw" wants it, and with the IDs by which napari-ome-zarr finds the images."""
    import ome_types

    found = ome_types.from_xml((reference.path / "OME/METADATA.ome.xml").read_text(), validate=False)
    ome: Any = zarr.open_group(reference.path, mode="r")["OME"].attrs["ome"]
    names = ome["series"]
    assert [image.id for image in found.images] == [f"Image:{name}" for name in names]
    for number, image in enumerate(found.images, 1):
        here, pixels = reference.at(round=number), image.pixels
        scale = here.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert image.name == here.attributes["ome"]["multiscales"][0]["name"]
        assert pixels.metadata_only is not None
        assert (pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == here.array().shape
        assert pixels.type.value == str(here.array().dtype)
        assert [1, pixels.physical_size_z, pixels.physical_size_y, pixels.physical_size_x] == scale
        assert pixels.physical_size_z_unit.value == "µm"
        assert [c.name for c in pixels.channels] == [c["label"] for c in here.channels]
        assert [c.color.as_rgb_tuple() for c in pixels.channels] == [
            tuple(bytes.fromhex(c["color"])) for c in here.channels
        ]


def test_rounds_have_one_transform_and_one_window(reference: Result) -> None:
    found = [
        json.loads((reference.path / f"round_0{n}" / "zarr.json").read_text())["attributes"]["ome"] for n in (1, 2, 3)
    ]
    for other in found[1:]:
        assert other["omero"] == found[0]["omero"]
        assert other["multiscales"][0]["datasets"] == found[0]["multiscales"][0]["datasets"]
    for channel, window in enumerate(c["window"] for c in reference.channels):
        counts = np.stack([whole(reference, round=n)[channel] for n in (1, 2, 3)])
        assert counts.min() <= window["start"] < window["end"] <= 2 * counts.max()


def test_rounds_differ_where_they_should(reference: Result) -> None:
    """The stain's light is the same in all rounds, its noise is not; letters' light is not."""
    expected = [whole(reference, "expected", n) for n in (1, 2, 3)]
    counts = [whole(reference, round=n) for n in (1, 2, 3)]
    stain = [c["label"] for c in reference.channels].index("stain")
    letters = np.abs(expected[0] - expected[1])[[0, 2]].max()
    assert np.abs(expected[0] - expected[1])[stain].max() < 0.1 * letters  # what letters leak
    residual = [c[stain] - 101.0 - e[stain] for c, e in zip(counts, expected, strict=True)]
    assert abs(np.corrcoef(residual[0].ravel(), residual[1].ravel())[0, 1]) < 0.03


def test_tables_agree_with_the_images(reference: Result) -> None:
    """Where an amplicon of a cell lies, its letter's dyes are, in every round; and label images show its cell."""
    amplicons, barcode = reference.amplicons(), {r["id"]: r["barcode"] for r in reference.barcodes().to_pylist()}
    scale, first = reference_grid(reference)
    place = np.stack([amplicons[f"{a}_nm"].to_numpy() for a in "zyx"], axis=1)
    pixel = np.floor((place - first) / scale + 0.5).astype(int)
    inside = np.all((pixel >= 0) & (pixel < reference.array().shape[1:]), axis=1)
    assert inside.sum() > 40
    truth = whole(reference, "labels/cells")
    same = [truth[tuple(p)] == c for p, c in zip(pixel[inside], amplicons["cell"].to_numpy()[inside], strict=True)]
    assert np.mean(same) > 0.7  # a pixel is a third of the way across one of these cells' borders at most
    names = ["amplicons_A", "amplicons_C"]
    for n in (1, 2, 3):
        dyes = whole(reference, "labelled", n)[1:]
        for p, c in zip(pixel[inside], amplicons["cell"].to_numpy()[inside], strict=True):
            letter = names.index(f"amplicons_{barcode[c][n - 1]}")
            assert dyes[letter][tuple(p)] > 0


def reference_grid(result: Result) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    transforms = result.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    scale, translation = (np.array(t[t["type"]][1:]) * 1000 for t in transforms)
    return scale, translation


def test_emitters_are_kept_once(reference: Result) -> None:
    """Dyes of amplicons stand once among the emitters, for all rounds, and are as many as the amplicons' table says."""
    emitters, amplicons = reference.emitters(), reference.amplicons()
    layer = np.array(emitters["layer"].to_pylist())
    assert set(layer) == {"stain", "amplicons"}
    mine = emitters["dyes"].to_numpy()[layer == "amplicons"]
    assert mine.sum() == amplicons["dyes"].to_numpy().sum()
    assert set(emitters["dye"].to_pylist()) == {"ATTO550", None}


def test_result_names_its_rounds(reference: Result) -> None:
    assert reference.rounds == 3
    assert reference.dask(0, round=3).shape == reference.array(0).shape
    with pytest.raises(OutputError, match="has no round 4; it has the rounds 1 to 3"):
        reference.array(0, round=4)
    third = reference.at(round=3)
    np.testing.assert_array_equal(third.array(1)[...], reference.array(1, round=3)[...])
    np.testing.assert_array_equal(third.array(0, "labels/cells")[...], whole(reference, "labels/cells"))
    assert third.attributes["ome"]["multiscales"][0]["name"] == "rounds round 3"
    with pytest.raises(OutputError, match="has no round 0"):
        reference.at(round=0)
    told = CliRunner().invoke(app, ["info", str(reference.path)])
    assert told.exit_code == 0
    assert "rounds" in told.output
    assert (reference.place.run / "preview.png").is_file()


def test_export_of_a_round(reference: Result, tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app, ["export", str(reference.path), "-o", str(tmp_path / "e"), "--format", "tiff", "--round", "2"]
    )
    assert told.exit_code == 0, told.output
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "e" / "C.tiff"), whole(reference, round=2)[2])
    told = CliRunner().invoke(app, ["export", str(reference.path), "-o", str(tmp_path / "f"), "--format", "tiff"])
    assert "round 1 of 3; type --round N" in told.output


def test_strangers_in_a_round_are_left_alone(reference: Result, source: str, tmp_path: Path) -> None:
    result = simulation(source, rounds=1).run(tmp_path / "r.zarr", until="barcodes", quiet=True)
    (result.path / "round_01" / "mine").mkdir()
    with pytest.raises(OutputError, match="round_01/mine"):
        experiment(source).run(result.path, overwrite=True, quiet=True)
    (result.path / "round_01" / "mine").rmdir()
    again = simulation(source, rounds=2).run(result.path, until="barcodes", overwrite=True, quiet=True)
    assert again.rounds == 2


def test_before_the_barcodes_there_are_no_rounds(source: str, tmp_path: Path) -> None:
    result = experiment(source).run(tmp_path / "l.zarr", until="labelling", quiet=True)
    assert result.rounds == 0
    assert [c["label"] for c in result.channels] == ["stain"]
    with pytest.raises(OutputError, match="no rounds of imaging"):
        result.barcodes()
    with pytest.raises(OutputError, match="no rounds of imaging"):
        decode(result)


# ---------------------------------------------------------------- what it costs


def test_memory_does_not_follow_the_rounds(source: str) -> None:
    few, many = (simulation(source, rounds=n).plan() for n in (2, 60))
    assert many.memory.total == few.memory.total
    assert many.stored_bytes > 10 * few.stored_bytes
    assert many.core_seconds > 5 * few.core_seconds
    assert len(many.to_mapping()["acquisition"][0]["coordinates"]) == 60


# ---------------------------------------------------------------- reading barcodes back


def test_noise_free_images_give_every_barcode(source: str, tmp_path: Path) -> None:
    result = experiment(source).run(tmp_path / "clear.zarr", until="confocal", quiet=True)
    found = decode(result)
    assert found.undecidable + found.right == found.cells
    assert found.right >= 6
    for row in found.table.to_pylist():
        assert row["decoded"] == (row["barcode"] if row["amplicons"] else "")


def test_counts_give_most_barcodes(reference: Result, tmp_path: Path) -> None:
    out = tmp_path / "decoded.zarr"
    words = ["decode", str(reference.path), "--quiet", "--json", "--output", str(out)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    sums = json.loads(told.output)
    assert sums["right"] >= 0.8 * (sums["cells"] - sums["undecidable"]) > 0
    assert sums["right"] + sums["wrong"] + sums["undecidable"] == sums["cells"] == reference.barcodes().num_rows
    assert Result.open(out).table("cells").equals(decode(reference).table), "in memory and as a job"
    again = CliRunner().invoke(app, words)
    assert again.exit_code != 0
    assert "--overwrite" in again.output
    said = CliRunner().invoke(app, ["info", str(out)])
    assert "cells with a barcode" in said.output
    assert CliRunner().invoke(app, ["verify", str(out)]).exit_code == 0
    refused = CliRunner().invoke(app, ["report", str(out)])
    assert refused.exit_code == 2
    assert "simexm info" in refused.output


def test_wrong_letters_are_counted(reference: Result, tmp_path: Path) -> None:
    """Decoding sees the images: with two rounds exchanged, the letters come out exchanged."""
    other = copied(reference, tmp_path)
    a, b, c = (other.path / name for name in ("round_02", "round_03", "x"))
    for old, new in ((a, c), (b, a), (c, b)):
        old.rename(new)
    was = decode(reference).table.to_pylist()
    for before, now in zip(was, decode(other).table.to_pylist(), strict=True):
        if before["decoded"]:
            first, second, third = before["decoded"]
            assert now["decoded"] == first + third + second


def test_what_cannot_be_decoded(reference: Result, source: str, tmp_path: Path) -> None:
    dark = simulation(source, rounds=1).run(tmp_path / "d.zarr", until="barcodes", quiet=True)
    with pytest.raises(OutputError, match=r"holds labelled, not light.*run it to its end"):
        decode(dark)
    told = CliRunner().invoke(app, ["decode", str(reference.path), "-o", str(tmp_path / "x.txt")])
    assert told.exit_code != 0
    assert "x.zarr" in told.output
    half = Result(Place(reference.path), {"simexm": {**reference.provenance, "status": "incomplete"}})
    with pytest.raises(OutputError, match="incomplete"):
        decode(half)


def test_a_lost_codebook_is_told_of(source: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        simulation(source, codebook=str(tmp_path / "none.csv")).run(tmp_path / "r.zarr", quiet=True)
    assert not (tmp_path / "r.zarr").exists()
