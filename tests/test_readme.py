"""Every command and code block of the README runs as it stands; that of object storage in tests/storage."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, flags=re.DOTALL)


def test_readme_has_its_commands() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("bash") == 7
    assert kinds.count("python") == 3
    # the two commands of a fresh machine are run by CI itself
    assert BLOCKS[0][1] == "pip install . && simexm run pipelines/quickstart.yaml\n"
    assert BLOCKS[1][1] == 'pip install ".[test]" && pytest -n auto --dist loadfile\n'


def test_picture_is_there() -> None:
    for name in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / name).is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the shell block of "Your own data" has run, on a small crop."""
    place = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(1)
    tifffile.imwrite(place / "segmentation.tif", rng.integers(1, 9, (40, 64, 64), np.uint32), compression="lzw")
    (place / "bin").mkdir()
    shim = place / "bin" / "simexm"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m simexm.cli "$@"\n')
    shim.chmod(0o755)
    lines = BLOCKS[2][1].splitlines()
    told = ["ingest", "new", "plan", "preview", "run", "info", "verify", "fluorophores", "report", "export"]
    assert [line.split()[1] for line in lines] == told
    for line in lines:
        type_in(line, place)
        if "new >" in line:  # edit it, as the README says: the middle of the phantom is enough
            text = (place / "my.yaml").read_text()
            (place / "my.yaml").write_text(text + "\ncrop: {offset: [60, 100, 100], shape: [60, 90, 90]}\n")
    return place


def type_in(line: str, place: Path) -> None:
    """Type a line into a shell in the folder."""
    path = f'PATH="{place}/bin:$PATH"; export PATH; {line}'
    subprocess.run(["/bin/sh", "-ec", path], cwd=place, check=True, timeout=200)


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
    lines = BLOCKS[[text for _, text in BLOCKS].index(next(t for _, t in BLOCKS if "config.ini" in t))][1].splitlines()
    for line in lines:
        type_in(line, folder)
    for name in ("ctc2017.zarr", "ctc2017/simulation/channel_0.tiff", "physical.zarr", "my-own.yaml"):
        assert (folder / name).exists(), name
    assert tifffile.imread(folder / "ctc2017/groundtruth/ATTO425/all_cells.tiff").shape == (4, 48, 48)


def test_block_of_rounds(folder: Path) -> None:
    (folder / "pipelines").mkdir()
    text = (ROOT / "pipelines" / "rolonies.yaml").read_text()
    for old, new in ((r"shape: \[.*?\]", "shape: [30, 60, 60]"), (r"rounds: \d+", "rounds: 2")):
        text, changed = re.subn(old, new, text)
        assert changed == 1
    (folder / "pipelines" / "rolonies.yaml").write_text(text)
    for line in next(text for _, text in BLOCKS if "simexm decode" in text).splitlines():
        type_in(line, folder)
    assert (folder / "rolonies.zarr" / "round_02" / "zarr.json").is_file()


def test_block_of_clusters(folder: Path) -> None:
    """Without a queue, what needs none; tests/batch types the whole block in where there is one."""
    lines = next(text for _, text in BLOCKS if "simexm submit" in text).splitlines()
    assert [line.split()[1] for line in lines] == ["run", "run", "submit", "status"]
    configs = folder / "cluster_configs"
    shutil.copytree(ROOT / "cluster_configs", configs)
    for line in lines[:3]:
        words = line.partition("#")[0]
        type_in(words if "--dry-run" in words else f"{words} --dry-run", folder)
    assert not (folder / "big.zarr").exists()
    shutil.copy(configs / "local.yaml", configs / "slurm.yaml")  # for the block of Python, which has no queue either


@pytest.mark.parametrize("number", [0, 1, 2])
def test_python_block(folder: Path, number: int) -> None:
    block = [text for kind, text in BLOCKS if kind == "python"][number].replace(", jobs=(2, 10)", "")
    body = "\n".join("    " + line for line in block.replace('"out.zarr"', f'"again{number}.zarr"').splitlines())
    script = folder / f"block{number}.py"
    script.write_text(f'if __name__ == "__main__":\n{body}\n')
    subprocess.run([sys.executable, script.name], cwd=folder, check=True, timeout=200)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda p: p.name)
def test_pipelines_are_valid(path: Path) -> None:
    from simexm import Simulation

    assert Simulation.load(path).stages
