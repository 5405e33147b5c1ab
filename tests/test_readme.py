"""Every command and code block of the project's pages runs unchanged.

Those of the tutorial, of ingesting and of analyses run in tests/test_docs.py, those of object storage in tests/storage, those of
stages in tests/stages, and those of clusters again, on a real queue, in tests/batch.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from simexm.sources.kinds import DESCRIPTIONS
from tests.markdown import ROOT, block, blocks, pages, type_here

pytestmark = [
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNNING = "docs/running.md"

BLOCKS = {
    "README.md": [
        ("bash", "pip install . && simexm run pipelines/quickstart.yaml"),
        ("bash", 'pip install ".[test]" && pytest -n auto --dist loadfile'),
        ("bash", "simexm ingest segmentation.tif -o cortex.zarr"),
        ("python", "from simexm import Simulation"),
        ("python", "import numpy as np"),
        ("bash", "simexm run config.ini"),
        ("bash", "simexm run pipelines/rolonies.yaml"),
    ],
    RUNNING: [
        ("bash", "simexm run my.yaml --cluster cluster_configs/slurm.yaml --dry-run"),
        ("python", "import simexm"),
        ("bash", "simexm ingest segmentation.tif -o s3://my-bucket/cortex.zarr"),
    ],
    "docs/tutorial.md": [
        ("python", "import numpy as np"),
        ("bash", "simexm ingest cells.tif"),
        ("yaml", "name: first"),
        ("bash", "simexm plan first.yaml"),
        ("python", "from simexm import Result"),
    ],
    "docs/deformation.md": [
        ("yaml", "source: {kind: phantom"),
        ("bash", "simexm plan uneven.yaml"),
        ("yaml", "stage: expansion"),
        ("yaml", "{stage: expansion, factor: 17.3"),
        ("python", "from simexm.stages.expansion.distortion"),
    ],
    "docs/ingesting.md": [
        ("bash", "simexm ingest cells.tif -o cells.zarr"),
        ("bash", "simexm ingest cells.tif -o part.zarr"),
        ("bash", "simexm ingest cells.tif -o marked.zarr"),
    ],
    "docs/detectors.md": [("yaml", "  - {stage: scmos, preset"), ("yaml", "  - {stage: scmos, frame_pixels")],
    "docs/alignment.md": [
        ("bash", 'pip install "simexm[align]"'),
        ("yaml", "content: labels"),
        ("yaml", "steps:"),
        ("yaml", "blocks: {voxels"),
        ("python", "import numpy as np"),
        ("bash", "simexm report aligned.zarr"),
        ("bash", "simexm export aligned.zarr"),
        ("bash", "simexm score aligned.zarr"),
        ("yaml", "moving_labels:"),
        ("yaml", "fixed: {dataset"),
    ],
    "docs/optics.md": [
        ("yaml", "source: {kind: phantom"),
        ("yaml", "  zernike: [{n: 4"),
        ("yaml", "  psf_stack: {path: bead"),
        ("yaml", "name: field"),
        ("csv", "# relative"),
    ],
    "docs/sweeps.md": [
        ("yaml", "source: {kind: phantom"),
        ("yaml", "axes:"),
        ("bash", "simexm sweep cells.yaml"),
        ("yaml", "measure:"),
        ("python", "from simexm import Result"),
    ],
    "docs/spectra.md": [
        ("csv", "# unit: percent"),
        ("csv", "wavelength_nm,LED"),
        ("csv", "wavelength_nm,camera"),
        ("yaml", "source: {kind: phantom"),
        ("bash", "simexm fluorophores --spec scope.yaml"),
        ("bash", "simexm fluorophores --fetch EGFP"),
    ],
    "docs/labels.md": [
        ("yaml", "name: bench"),
        ("bash", "simexm run bench.yaml"),
        ("python", "from simexm.geometry.grid import Box"),
    ],
    "docs/movies.md": [
        ("yaml", "name: movie"),
        ("bash", "simexm plan movie.yaml"),
        ("python", "import zarr"),
        ("yaml", "# part of a spec"),
        ("python", "from simexm import Result"),
    ],
    "docs/molecules.md": [
        ("yaml", "name: molecules"),
        ("bash", "simexm plan molecules.yaml"),
        ("python", "import numpy as np"),
    ],
    "docs/pan-stains.md": [
        ("bash", "simexm new pan"),
        ("bash", "simexm ingest cells.tif"),
        ("yaml", "name: proxy"),
    ],
    "docs/analysis.md": [
        ("python", '"""Volumes of cells'),
        ("toml", "[build-system]"),
        ("bash", "pip install ."),
        ("python", "from cell_volumes import"),
    ],
    "docs/skeletons.md": [
        ("python", "import numpy as np"),
        ("bash", "simexm skeletons cells.npy"),
        ("python", "from simexm import Result"),
    ],
    "docs/localisation.md": [
        ("python", "import numpy as np"),
        ("yaml", "pixel_size_nm: 100"),
        ("bash", "simexm localise frames.tif"),
        ("python", "from simexm import Result"),
    ],
    "docs/objects.md": [
        ("python", "import numpy as np"),
        ("yaml", "content: probability"),
        ("bash", "simexm objects mito.npy"),
        ("python", "from simexm import Result"),
    ],
    "docs/synapses.md": [
        ("yaml", "kind: phantom"),
        ("yaml", "datasets:"),
        ("yaml", "within_um:"),
        ("bash", "simexm synapses"),
        ("python", "from simexm import Result"),
    ],
    "docs/stage.md": [
        ("python", '"""Chromatic shift:'),
        ("toml", "[build-system]"),
        ("yaml", "source: {kind: phantom"),
        ("bash", "pip install ."),
    ],
    "CONTRIBUTING.md": [("bash", 'pip install -e ".[test]"')],
}
"""All blocks, by page: their kind and how they begin. One that is added here is run by a test that is added with it."""


def test_every_block_is_known() -> None:
    for page in pages():
        found = blocks(page)
        known = BLOCKS.get(page, [])
        assert [each.kind for each in found] == [kind for kind, _ in known], page
        assert all(each.text.startswith(begin) for each, (_, begin) in zip(found, known, strict=True)), page
        assert (ROOT / page).read_text(encoding="utf-8").count("```") == 2 * len(found), page
    assert set(BLOCKS) <= set(pages())


def test_ci_runs_the_commands_for_a_fresh_machine() -> None:
    """The two commands of the README, and the three of CONTRIBUTING."""
    first, second = (each.text for each in blocks("README.md")[:2])
    assert first == "pip install . && simexm run pipelines/quickstart.yaml\n"
    assert second == 'pip install ".[test]" && pytest -n auto --dist loadfile\n'
    told = blocks("CONTRIBUTING.md")[0].text
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("ruff format --check .", "ruff check .", "mypy", "pytest -n auto --dist loadfile"):
        assert command in told
        assert command in ci
    assert "simexm run pipelines/quickstart.yaml" in ci
    assert "mkdocs build --strict" in ci
    assert '".[test]"' in ci
    assert 'pytest -n auto --dist loadfile -m "slow and not batch" && pytest -m batch' in told
    assert 'pytest -n auto --dist loadfile -q -m "slow and not batch"' in ci
    assert "pytest -q -m batch" in ci


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    """Pictures and pages of the project, and the headings of this page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in re.findall(r"(?m)^#+ (.+)$", text)}
    for link in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'src="([^"]+)"', text)]:
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://"):
            assert ((ROOT / page).parent / link.partition("#")[0]).is_file(), link


def test_a_picture_opens_the_readme() -> None:
    assert README.index("quickstart.png") < README.index("```")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the shell block of "Your own data" has run, on a small crop."""
    place = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(1)
    tifffile.imwrite(place / "segmentation.tif", rng.integers(1, 9, (40, 64, 64), np.uint32), compression="lzw")
    lines = block("README.md", "simexm new >").text.splitlines()
    told = ["ingest", "new", "plan", "preview", "run", "info", "verify", "fluorophores", "report", "export"]
    assert [line.split()[1] for line in lines] == told
    for line in lines:
        type_here(line, place)
        if "new >" in line:  # edit it, as the README says: the middle of the phantom is enough
            text = (place / "my.yaml").read_text()
            (place / "my.yaml").write_text(text + "\ncrop: {offset: [60, 100, 100], shape: [30, 48, 48]}\n")
    return place


def test_shell_block(folder: Path) -> None:
    assert (folder / "my-preview.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "out.zarr" / "zarr.json").is_file()
    assert (folder / "out.run" / "preview.png").is_file()
    assert (folder / "cortex.zarr" / "zarr.json").is_file()
    assert (folder / "spectra.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "files" / "merged.ome.tiff").is_file()
    assert "</html>" in (folder / "report.html").read_text()


def test_block_of_the_2017_configuration(folder: Path) -> None:
    text = (ROOT / "pipelines" / "ctc.ini").read_text()
    for old, new in (("discs.tif", "segmentation.tif"), ("150, 773, 739", "4, 24, 24"), ("440, 550", "450, 550")):
        assert old in text
        text = text.replace(old, new)
    (folder / "config.ini").write_text(text)
    for line in block("README.md", "config.ini").text.splitlines():
        type_here(line, folder)
    for name in ("ctc2017.zarr", "ctc2017/simulation/channel_0.tiff", "physical.zarr", "my-own.yaml"):
        assert (folder / name).exists(), name
    assert tifffile.imread(folder / "ctc2017/groundtruth/ATTO425/all_cells.tiff").shape == (4, 48, 48)


def test_block_of_rounds(folder: Path) -> None:
    (folder / "pipelines").mkdir()
    text = (ROOT / "pipelines" / "rolonies.yaml").read_text()
    for old, new in ((r"shape: \[.*?\]", "shape: [20, 40, 40]"), (r"rounds: \d+", "rounds: 2")):
        text, changed = re.subn(old, new, text)
        assert changed == 1
    (folder / "pipelines" / "rolonies.yaml").write_text(text)
    for line in block("README.md", "simexm decode").text.splitlines():
        type_here(line, folder)
    assert (folder / "rolonies.zarr" / "round_02" / "zarr.json").is_file()


def test_block_of_clusters(folder: Path) -> None:
    """Without a queue, what needs none; tests/batch types the whole block in where there is one."""
    lines = block(RUNNING, "simexm submit").text.splitlines()
    assert [line.split()[1] for line in lines] == ["run", "run", "submit", "status"]
    configs = folder / "cluster_configs"
    shutil.copytree(ROOT / "cluster_configs", configs, dirs_exist_ok=True)
    for line in lines[:3]:
        words = line.partition("#")[0]
        type_here(words if "--dry-run" in words else f"{words} --dry-run", folder)
    assert not (folder / "big.zarr").exists()


@pytest.mark.parametrize(
    ("page", "number"),
    [
        pytest.param(page, n, marks=[pytest.mark.slow] * (n != 4))
        for page in ("README.md", RUNNING)
        for n, (kind, _) in enumerate(BLOCKS[page])
        if kind == "python"
    ],
)
def test_python_block(folder: Path, page: str, number: int) -> None:
    text = blocks(page)[number].text.replace(", jobs=(2, 10)", "").replace('"out.zarr"', f'"again{number}.zarr"')
    configs = folder / "cluster_configs"
    configs.mkdir(exist_ok=True)
    shutil.copy(ROOT / "cluster_configs" / "local.yaml", configs / "slurm.yaml")  # there is no queue here
    with contextlib.chdir(folder):
        exec(compile(text, page, "exec"), {})


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda p: p.name)
def test_pipelines_are_valid(path: Path) -> None:
    from simexm import Simulation

    assert Simulation.load(path).stages


def test_exit_codes_are_those_of_the_help(folder: Path) -> None:
    table = re.findall(r"(?m)^\| ([\d, ]+) \| (.+?) \|$", README)
    told = " ".join(type_here("simexm --help", folder).split())
    assert [codes for codes, _ in table] == ["0", "1", "2", "130, 143"]
    assert all(code in told.partition("Exit codes: ")[2] for codes, _ in table for code in codes.split(", "))


def test_every_format_has_a_row() -> None:
    """The table of formats names each kind of source, and each extra that a format needs is one of the package's."""
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    words = {"sequence": "slices", "cells": "--cells splitted", "NPY": ".npy"}
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for kind in DESCRIPTIONS:
        assert any(words.get(kind, kind) in row.split("|")[1] for row in rows), kind
    assert all(row.count("|") == rows[0].count("|") for row in rows)
