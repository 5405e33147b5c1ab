"""The documentation: its pages do what they say, say what the code has, and are built without the network."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from pydantic import BaseModel

from docs.hooks import floors, keys
from simexm.jobs.batch.cluster_file import ClusterFile, SlurmFile
from simexm.result.result import Result
from simexm.spec.simulation import Spec
from simexm.stages.microscope.confocal import Confocal
from tests.build import forget_packages
from tests.markdown import ROOT, block, blocks, make_shell, put_command, type_here, type_in
from tests.test_floors import FLOORS

pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
PAGES = sorted(str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md"))


def run_python(text: str, place: Path) -> None:
    """Execute a block of Python in a folder."""
    with contextlib.chdir(place):
        exec(compile(text, "page", "exec"), {})


# ---------------------------------------------------------------- pages do what they say


def test_localisation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, settings, commands, read = (text for _, text in blocks("docs/localisation.md"))
    run_python(make.replace("frames, size = 100.0, 130.0, 1500", "frames, size = 100.0, 130.0, 60"), tmp_path)
    (tmp_path / "localise.yaml").write_text(settings)
    for line in commands.splitlines():
        type_here(line, tmp_path)
    run_python(read, tmp_path)
    assert "pairs / (pairs + missed + wrong)" in capsys.readouterr().out
    scores = {row["score"]: row["value"] for row in Result.open(tmp_path / "score.zarr").scores().to_pylist()}
    assert scores["jaccard"] > 0.85  # some emitters overlap
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_skeletons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, commands, read = (text for _, text in blocks("docs/skeletons.md"))
    run_python(make, tmp_path)
    for line in commands.splitlines():
        type_here(line, tmp_path)
    run_python(read, tmp_path)
    told = capsys.readouterr().out
    assert "expected run length" in told
    assert (tmp_path / "swc" / "1.swc").is_file()
    assert (tmp_path / "neuroglancer" / "info").is_file()
    rows = {r["id"]: r for r in Result.open(tmp_path / "skeletons.zarr").table("skeletons").to_pylist()}
    assert rows[1]["branch_points"] == 1
    assert rows[2]["end_points"] == 2
    scores = {row["score"]: row["value"] for row in Result.open(tmp_path / "lengths.zarr").scores().to_pylist()}
    assert 0.5 < scores["nerl"] < 0.9
    assert scores["merged"] == 0


def test_objects_contacts_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, settings, commands, read = (text for _, text in blocks("docs/objects.md"))
    run_python(make, tmp_path)
    (tmp_path / "mito.yaml").write_text(settings)
    for line in commands.splitlines():
        type_here(line, tmp_path)
    run_python(read, tmp_path)
    told = capsys.readouterr().out
    assert "H(segment | truth)" in told
    assert Result.open(tmp_path / "mito.zarr").table("objects").num_rows == 9
    owners = Result.open(tmp_path / "owners.zarr").table("owners")
    assert sorted(owners["owner"].to_pylist()) == list(range(1, 10))
    assert Result.open(tmp_path / "contacts.zarr").table("contacts").num_rows == 0  # they lie a voxel apart
    assert Result.open(tmp_path / "bridged.zarr").table("contacts").num_rows >= 12
    rows = Result.open(tmp_path / "score.zarr").scores().to_pylist()
    scores = {row["score"]: row["value"] for row in rows if not row["subset"]}
    assert scores["voi_split"] == pytest.approx(1 / 9)
    assert scores["voi_merge"] == pytest.approx(2 / 9)


def test_synapses_and_their_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *files, commands, read = (text for _, text in blocks("docs/synapses.md"))
    for name, text in zip(("tissue", "junctions", "inside"), files, strict=True):
        (tmp_path / f"{name}.yaml").write_text(text)
    for line in commands.splitlines():
        type_here(line, tmp_path)
    run_python(read, tmp_path)
    assert "same presynaptic" in capsys.readouterr().out
    scores = {(s["score"], s["subset"]): s["value"] for s in Result.open(tmp_path / "score.zarr").scores().to_pylist()}
    assert scores["f1", "directed"] > 0.9
    assert (tmp_path / "graph" / "matrix.graphml").is_file()


@pytest.mark.slow
def test_a_sweep_from_spec_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, varied, commands, mine, read = (text for _, text in blocks("docs/sweeps.md"))
    (tmp_path / "cells.yaml").write_text(spec)
    (tmp_path / "factors.yaml").write_text(varied)
    (tmp_path / "mine.yaml").write_text(f"axes: {{seed: [1]}}\n{mine}")
    for line in commands.splitlines():
        type_here(line, tmp_path)
    type_here("simexm sweep cells.yaml --settings mine.yaml --output mine.zarr --dry-run", tmp_path)
    run_python(read, tmp_path)
    assert capsys.readouterr().out.count("4.0 ") >= 2
    assert "<svg" in (tmp_path / "factors.html").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial was followed, but for its last step."""
    place = tmp_path_factory.mktemp("tutorial")
    for kind, text in blocks("docs/tutorial.md")[:-1]:
        if kind == "yaml":
            (place / "first.yaml").write_text(text)
        elif kind == "python":
            run_python(text, place)
        else:
            for line in text.splitlines():
                type_here(line, place)
    return place


def test_tutorial_makes_the_picture_that_it_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.image import imread

    made, shown = (imread(p) for p in (folder / "first.run/preview.png", ROOT / "docs/pictures/tutorial.png"))
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 0.01  # texts are drawn by the fonts that there are
    run_python(blocks("docs/tutorial.md")[-1].text, folder)
    inside, outside = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out)[:2])
    assert inside - 100 > 20 * (outside - 100) > 0  # above the offset that the page names


def test_blocks_of_ingesting(folder: Path) -> None:
    tifffile.imwrite(folder / "synapses.tif", tifffile.imread(folder / "cells.tif") == 3, compression="zlib")
    for number, each in enumerate(blocks("docs/ingesting.md")):
        for line in each.text.splitlines():
            type_here(line.replace("cells.zarr", f"again{number}.zarr"), folder)
    assert "synapse" in type_here("simexm info marked.zarr", folder)
    assert "20 x 160 x 80" in type_here("simexm info part.zarr", folder)


def test_blocks_of_spectra_draw_the_picture_that_the_page_shows(tmp_path: Path) -> None:
    from matplotlib.image import imread

    files = iter(("scope.csv", "led.csv", "camera.csv", "scope.yaml"))
    for kind, text in blocks("docs/spectra.md"):
        if kind in ("csv", "yaml"):
            (tmp_path / next(files)).write_text(text)
        elif "--spec" in text:
            told = type_here(text, tmp_path)
    assert next(files, None) is None
    assert re.search(r"ATTO488 +green +470 nm +29% +500\.6 to 549\.5 nm +60% +100%", told)
    made, shown = (imread(p) for p in (tmp_path / "spectra.png", ROOT / "docs/pictures/spectra.png"))
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 0.01  # texts are drawn by the fonts that there are


def test_the_spec_of_optics_is_planned_at_its_depth(tmp_path: Path) -> None:
    (tmp_path / "optics.yaml").write_text(block("docs/optics.md", "source:").text)
    told = " ".join(type_here("simexm plan optics.yaml", tmp_path).split())
    assert "planes 46" in told  # 0.92 of the step of the stage
    assert "first plane 50.2 um deep" in told


def test_the_plan_says_what_changes_over_the_field(tmp_path: Path) -> None:
    spec = block("docs/optics.md", "name: field").text
    (tmp_path / "field.yaml").write_text(spec)
    told = " ".join(type_here("simexm plan field.yaml", tmp_path).split())
    assert "optical axis at pixel 1024, 1024" in told
    assert "shift of red focus 300 nm deeper" in told
    assert "radius 30 mm" in told
    assert re.search(r"a sum of \d+ terms", told)
    measured = spec.replace("sheet_waist_um: 3.0", "sheet_profile: sheet.csv")
    (tmp_path / "sheet.csv").write_text(block("docs/optics.md", "along_um,intensity").text)
    (tmp_path / "field.yaml").write_text(measured)
    assert re.search(r"a sum of \d+ terms", " ".join(type_here("simexm plan field.yaml", tmp_path).split()))


def test_the_keys_of_aberrations_and_measured_stacks_are_a_microscope() -> None:
    for first, told in (("polarisation_deg", 3), ("psf_stack: {path: bead", 0)):
        keys = yaml.safe_load(block("docs/optics.md", first).text)
        red = {"name": "red", "laser_wavelength_nm": 633, "band_nm": [650, 720], "laser_power_uW": 5}
        common = {"numerical_aperture": 1.0, "pixel_size_nm": 100, "plane_spacing_nm": 200, "channels": [red]}
        made = Confocal.model_validate(common | keys)
        assert len(made.zernike) == told
        assert (made.psf_stack is None) == (told > 0)


@pytest.mark.slow
def test_blocks_of_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from simexm.result.result import Result

    settings, command, table = blocks("docs/labels.md")
    (folder / "bench.yaml").write_text(settings.text)
    type_here(command.text, folder)
    result = Result.open(folder / "bench.zarr")
    blue, nuclei = np.asarray(result.array()[0]), np.asarray(result.array(of="labels/nuclei_nucleus")[:]) != 0
    assert nuclei.sum() > 100
    assert blue[nuclei].mean() > 100 + 5 * (blue[~nuclei].mean() - 100)
    capsys.readouterr()
    run_python(table.text, folder)
    number, pre, post = map(int, re.findall(r"\d+", capsys.readouterr().out))
    assert number > 100
    assert pre != post


def test_blocks_of_alignment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.registration import nuclei_pair
    from simexm.analysis.registration.align import Align
    from simexm.settings import parse

    pytest.importorskip("SimpleITK")
    commands, settings, steps, large, python, looked, files, judged, labelled, pair_of_challenge = blocks(
        "docs/alignment.md"
    )
    chosen = Align.model_validate(parse(large.text, "alignment.md")).blocks
    assert chosen is not None
    assert (chosen.voxels, chosen.overlap) == (128, 16)
    assert Align.model_validate(parse(steps.text, "alignment.md")).moving.mask == "tissue2.tif"
    pair = nuclei_pair(1, 48, rms=1.0, length=12.0)
    cells = np.arange(48**3, dtype=np.uint32).reshape(48, 48, 48) // 512
    for name, values in {"round1": pair.fixed, "round2": pair.moving, "cells2": cells}.items():
        meta = {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "PhysicalSizeZ": 1.0}
        tifffile.imwrite(tmp_path / f"{name}.tif", values, ome=True, metadata=meta)
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "labels.yaml").write_text(settings.text)
    for line in commands.text.splitlines()[1:]:
        type_here(line, tmp_path)
    capsys.readouterr()
    run_python(python.text, tmp_path)
    before, after = map(float, capsys.readouterr().out.split())
    assert after > 0.8 > before
    ids = Result.open(tmp_path / "cells1.zarr").array(of="labels/ids")[:]
    tifffile.imwrite(tmp_path / "cells1.tif", np.asarray(ids), ome=True, metadata=meta)
    (tmp_path / "cells.yaml").write_text(labelled.text)
    for line in (files.text + judged.text + looked.text).splitlines():
        type_here(line, tmp_path)
    again, aligned = (np.asarray(Result.open(tmp_path / f"{name}.zarr").array()[...]) for name in ("again", "aligned"))
    np.testing.assert_allclose(again, aligned, atol=0.5)
    found = {
        name: {
            (s["score"], s["subset"]): s["value"] for s in Result.open(tmp_path / f"{name}.zarr").scores().to_pylist()
        }
        for name in ("points", "overlap")
    }
    assert (tmp_path / "aligned-report.html").stat().st_size > 10_000
    assert found["points"]["residual_p95", ""] == 0
    assert found["overlap"]["dice", ""] == 1 > found["overlap"]["dice", "identity"]
    assert Align.model_validate(parse(pair_of_challenge.text, "alignment.md")).moving.dataset == "move"


def test_blocks_of_pan_stains(folder: Path) -> None:
    commands, ingest, settings = blocks("docs/pan-stains.md")
    for line in commands.text.splitlines():
        type_here(line, folder)
    cells = tifffile.imread(folder / "cells.tif")
    tifffile.imwrite(folder / "em.tif", (cells % 7 * 40).astype(np.uint8), compression="zlib")
    type_here(ingest.text, folder)
    (folder / "proxy.yaml").write_text(settings.text)
    assert "electrons a dye" in type_here("simexm plan proxy.yaml", folder)
    page = (ROOT / "docs/pan-stains.md").read_text(encoding="utf-8")
    assert "osmium, not protein" in page


def test_blocks_of_deformation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, command, rounds, published, curve = blocks("docs/deformation.md")
    (tmp_path / "uneven.yaml").write_text(settings.text)
    said = type_here(command.text, tmp_path)
    assert "distortion" in said
    assert "liconn: 66 at 0.6" in " ".join(said.split())
    stages = yaml.safe_load(settings.text)
    stages["stages"][2] = yaml.safe_load(rounds.text)
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(stages))
    assert "3 such images, one for each round" in " ".join(type_here("simexm plan rounds.yaml", tmp_path).split())
    (tmp_path / "published.yaml").write_text(
        re.sub(r"(?ms)  - stage: expansion.*?(?=  - stage: confocal)", f"  - {published.text}", settings.text)
    )
    assert "17.3" in Path(tmp_path / "published.yaml").read_text()
    type_here("simexm plan published.yaml", tmp_path)
    capsys.readouterr()
    run_python(curve.text, tmp_path)
    errors = [float(n) for n in re.findall(r"[\d.]+", capsys.readouterr().out.splitlines()[-1])]
    assert errors == sorted(errors)
    assert 60 < errors[0] < errors[-1] < 250


@pytest.mark.slow
def test_pan_stain_makes_the_picture_that_its_page_shows(tmp_path: Path) -> None:
    from matplotlib.image import imread

    type_here(f"simexm run {ROOT}/pipelines/pan.yaml -o {tmp_path}/pan.zarr --workers 1", tmp_path)
    made, shown = (imread(p) for p in (tmp_path / "pan.run/preview.png", ROOT / "docs/pictures/pan.png"))
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 0.02  # texts are drawn by the fonts that there are


@pytest.fixture(scope="module")
def analysis(folder: Path) -> Iterator[Path]:
    """Where the analysis of the page is installed."""
    place = folder / "analysis"
    place.mkdir()
    for word, name in (("class ", "cell_volumes.py"), ("[project]", "pyproject.toml")):
        (place / name).write_text(block("docs/analysis.md", word).text)
    make_shell(place)
    quiet = f'--no-deps --no-build-isolation --no-index --quiet --disable-pip-version-check --target "{place}/site"'
    put_command(place, "pip", f'exec "{sys.executable}" -m pip "$@" {quiet}')
    type_in(block("docs/analysis.md", "pip install").text, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place / "site")
        forget_packages()
        yield place
    forget_packages()
    sys.modules.pop("cell_volumes", None)


def test_blocks_of_an_own_analysis(analysis: Path, folder: Path) -> None:
    from simexm.analysis import installed
    from simexm.result.result import Result

    run_python(block("docs/analysis.md", "first.zarr").text, folder)
    table = Result.open(folder / "volumes.zarr").table("volumes")
    ids, pixels = np.unique(Result.open(folder / "first.zarr").array(of="labels/cells")[:], return_counts=True)
    assert table["id"].to_pylist() == ids[ids != 0].tolist()
    assert table["pixels"].to_pylist() == pixels[ids != 0].tolist()
    assert installed.load("cell_volumes").__module__ == "cell_volumes"


def test_blocks_of_movies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's movie, its shapes, and its picture."""
    from matplotlib.image import imread

    from docs.pictures.movies import draw

    spec, commands, script, motion, truth = blocks("docs/movies.md")
    (tmp_path / "movie.yaml").write_text(spec.text)
    plan, run = commands.text.splitlines()
    assert re.search(r"cells +\d+ somata, \d+ whole", type_here(plan, tmp_path))
    type_here(run, tmp_path)
    run_python(script.text, tmp_path)
    shape, series, rows = re.findall(r"\([\d, ]+\)|\d+$", capsys.readouterr().out.strip())
    assert shape == "(80, 1, 1, 192, 192)"
    assert series == f"({rows}, 80)"
    run_python(truth.text, tmp_path)
    footprints, seen = map(int, capsys.readouterr().out.split())
    assert footprints > 100 * seen > 0
    data = yaml.safe_load(spec.text)
    data["stages"][1:1] = yaml.safe_load(motion.text)["stages"]
    assert [s.tag for s in Spec.from_mapping(data).stages][:3] == ["activity", "motion", "miniscope"]
    draw(tmp_path / "movie.zarr", tmp_path / "movies.png")
    made, shown = (imread(p) for p in (tmp_path / "movies.png", ROOT / "docs/pictures/movies.png"))
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 0.01


@pytest.mark.slow
def test_blocks_of_molecules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's movie, what it exports, and its picture."""
    from matplotlib.image import imread

    from docs.pictures.molecules import draw
    from simexm.result.result import Result
    from simexm.sources.localisations import read_localisations

    spec, commands, script = blocks("docs/molecules.md")
    (tmp_path / "molecules.yaml").write_text(spec.text)
    plan, run, *exports, localise, score = commands.text.splitlines()
    assert re.search(r"blinking: Alexa647 +on for .+ in a frame", type_here(plan, tmp_path))
    type_here(run, tmp_path)
    run_python(script.text, tmp_path)
    shape, rows, _ = re.findall(r"\([\d, ]+\)|\d+$|(?<= )\d+(?= )", capsys.readouterr().out.strip())
    assert shape.startswith("(400, 1, 1, ")
    truth = Result.open(tmp_path / "molecules.zarr").table("localisations")
    assert truth.num_rows == int(rows)
    for command, name in zip(exports, ("picasso/localisations.hdf5", "thunderstorm/localisations.csv"), strict=True):
        type_here(command, tmp_path)
        table = read_localisations(tmp_path / name)
        np.testing.assert_array_equal(table["time"], truth["time"].to_numpy())
        np.testing.assert_allclose(table["x_nm"], truth["x_nm"].to_numpy(), atol=0.01)
    type_here(localise, tmp_path)
    type_here(score, tmp_path)
    scores = {one["score"]: one["value"] for one in Result.open(tmp_path / "score.zarr").scores().to_pylist()}
    assert scores["precision"] > 0.98
    assert scores["rmse_lateral"] < 10  # nm of tissue, a quarter of those in which the camera sees it
    type_here("simexm export found.zarr --output again --format picasso", tmp_path)
    again = read_localisations(tmp_path / "again/localisations.hdf5")
    found = Result.open(tmp_path / "found.zarr").table("localisations")
    np.testing.assert_allclose(again["x_nm"], found["x_nm"].to_numpy(), atol=0.01)
    draw(tmp_path / "molecules.zarr", tmp_path / "molecules.png")
    made, shown = (imread(p) for p in (tmp_path / "molecules.png", ROOT / "docs/pictures/molecules.png"))
    assert made.shape == shown.shape
    assert np.abs(made - shown).mean() < 0.01


# ---------------------------------------------------------------- pages say what the code has


def test_every_key_has_a_row_with_a_description() -> None:
    """Of specs, all their stages, sources and dyes, and of cluster files; one that is added without words fails here."""
    found = keys.models(Spec) + keys.models(ClusterFile)
    names = {model.__name__ for model in found}
    assert {"Spec", "Phantom", "ZarrSource", "Confocal", "Camera", "Execution", "Imaging2017", "SlurmFile"} <= names
    assert len({keys.anchor(model) for model in found}) == len(found)
    for model in found:
        rows = {row.name: row for row in keys.keys(model)}
        assert rows.keys() == model.model_fields.keys()
        assert all(row.description and row.type and row.default for row in rows.values())
        for name, row in rows.items():
            assert row.unit or not re.search(r"_(nm|um|um\d|nm3|s|us|ns|fs|e|W|uW|m|GiB|GM|MHz|cm2?|counts)$", name), (
                name
            )


def test_a_key_says_type_unit_default_and_bounds() -> None:
    from pydantic import Field

    class Part(BaseModel):
        """A part.

        Attributes
        ----------
        size_nm, shift_nm
            How large, and
            how far.
        several
            Some.
        kind
            Which.
        """

        size_nm: float = Field(gt=0, le=1e6)
        shift_nm: float | None = Field(default=None, ge=-1)
        several: tuple[float, ...] = Field(default=(), max_length=3)
        kind: str = Field(default="a", description="Another.")

    size, shift, several, kind = keys.keys(Part)
    assert size == ("size_nm", "number", "nm", "required", "above 0; at most 1e+06", "How large, and how far.")
    assert shift == ("shift_nm", "number", "nm", "left out", "-1 or more", "How large, and how far.")
    assert several == ("several", "list of: number", "", "`[]`", "at most 3 entries", "Some.")
    assert kind.description == "Another."

    class Silent(BaseModel):
        """No words."""

        size_nm: float

    with pytest.raises(ValueError, match="size_nm has no description"):
        keys.keys(Silent)


def test_a_value_that_is_written_as_text_is_shown_as_text() -> None:
    rows = {row.name: row for row in keys.keys(SlurmFile)}
    assert rows["driver_memory"][1:4] == ("text, such as `4 GiB`", "", "`4 GiB`")
    assert rows["jobs"][1:4] == ("text, such as `2:10`", "", "`1:1`")
    assert rows["walltime"].type == "text, such as `04:00:00`"


def test_diagram_shows_the_floors() -> None:
    assert floors.floors() == FLOORS
    drawn = floors.diagram()
    shown = [name for names in reversed(FLOORS) for name in names]
    rows = re.findall(r'<text class="code" x="12"[^>]*>(\w+)(/|\.py)<', drawn)
    assert [name for name, _ in rows] == shown
    assert all((ROOT / "simexm" / f"{name}{end}").exists() for name, end in rows)
    folders = {p.parent.name for p in (ROOT / "simexm").glob("*/__init__.py")}
    assert folders <= set(shown)
    assert {name for name, end in rows if end == "/"} == folders
    assert {folder for folder, _, _ in floors.WAY} <= folders


def defined(path: Path) -> set[str]:
    """Names that a module defines: its own, and those of its classes behind a dot."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
            for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
                if isinstance(target, ast.Name):
                    names.add(prefix + target.id)
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{node.name}.")

    add(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def test_where_is_what_is_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| `([\w/.]+)` \| `([\w.]+)` \|$", page, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\|", page, re.MULTILINE)) - 4  # but the heads of two tables
    for _, path, name in rows:
        assert name in defined(ROOT / path), f"{path} has no {name}"
    asked = " ".join(what for what, _, _ in rows)
    for words in ("pinhole", "block's halo", "failed block", "file format", "detector"):
        assert words in asked


# ---------------------------------------------------------------- the site


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take sources, and links that are no mere relation such as `canonical`."""
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "prefetch"):
            self.found.append(str(given["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation. Whatever would reach for the network is refused; warnings are errors."""
    pytest.importorskip("mkdocs")
    place = tmp_path_factory.mktemp("site")
    no_network = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place],
        cwd=ROOT,
        env={**os.environ, **no_network, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return place


def test_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in PAGES:
        path = (site / page).with_suffix(".html")
        loads = Loads()
        loads.feed(path.read_text(encoding="utf-8"))
        assert loads.found
        for one in loads.found:
            assert re.match(r"data:|(?!\w+:|//)", one), f"{page} loads {one}"
            if not one.startswith("data:"):
                assert (path.parent / one.partition("?")[0]).is_file(), f"{page} loads {one}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_site_holds_what_is_made_from_the_code(site: Path) -> None:
    spec = (site / "reference/spec.html").read_text(encoding="utf-8")
    assert 'id="confocal"' in spec
    assert "<code>pinhole_airy_units</code>" in spec
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    for name in (
        "simexm.Simulation.plan",
        "simexm.Simulation.load",
        "simexm.simulate",
        "simexm.ingest",
        "simexm.Result.open",
        "simexm.cluster",
    ):
        assert f'id="{name}"' in python, name
    contracts = (site / "reference/contracts.html").read_text(encoding="utf-8")
    for name in ("simexm.stages.contract.Stage.needs", "simexm.analysis.contract.Bench.measure"):
        assert f'id="{name}"' in contracts, name
    architecture = (site / "architecture.html").read_text(encoding="utf-8")
    assert "<svg" in architecture
    assert "&lt;svg" not in architecture
    assert "<!-- keys" not in "".join(p.read_text(encoding="utf-8") for p in site.rglob("*.html"))
