"""A preview, its picture and what the terminal shows of it are the pixels that the run writes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from simexm.api import Simulation
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple
from simexm.result.result import Result
from simexm.run.excerpt import tiles_of
from simexm.view import picture as drawing
from simexm.view.picture import id_colors, merged
from simexm.view.preview import USUAL, Preview, box_of
from simexm.view.terminal import in_cells
from tests import rounds_build
from tests.build import layer
from tests.build import spec as tiny
from tests.model2017 import small_2017
from tests.run.conftest import VOXEL_NM, labels, spec, stored

__all__ = ["labels", "stored"]

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

CELL = re.compile(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m(▀+)")


@pytest.fixture(scope="module")
def simulation(stored: Path) -> Simulation:
    """In tiles that do not fit into blocks evenly."""
    return Simulation.from_mapping(spec(stored)).with_tile((8, 20, 32))


@pytest.fixture(scope="module")
def result(simulation: Simulation, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return simulation.run(tmp_path_factory.mktemp("whole") / "whole.zarr", client=client, quiet=True)


def there(preview: Preview, result: Result) -> tuple[NDArray[Any], NDArray[Any]]:
    """Counts and ids that the run wrote where the preview is."""
    box = preview.box.slices
    return np.asarray(result.array()[(slice(None), *box)]), np.asarray(result.array(0, "labels/cells")[box])


@pytest.mark.parametrize(
    ("at", "shape"), [(None, None), ((0, 0, 0), None), ((18, 55, 68), (7, 30, 30)), ((9, 30, 2), (1, 1, 50))]
)
def test_counts_and_ids_are_the_runs(
    at: Triple | None, shape: Triple | None, simulation: Simulation, result: Result
) -> None:
    preview = simulation.preview(at=at, shape=shape)
    image, ids = there(preview, result)
    np.testing.assert_array_equal(preview.image, image)
    np.testing.assert_array_equal(preview.labels, ids)
    assert preview.image.dtype == image.dtype


@pytest.mark.parametrize(
    ("kind", "until"), [("crop", None), ("crop", "labelling"), ("model of 2017", None), ("phantom", None)]
)
def test_of_runs_of_other_kinds(
    kind: str, until: str | None, stored: Path, client: distributed.Client, tmp_path: Path
) -> None:
    """Of a part of the source; of a model that counts cells in the whole specimen first; with a mask."""
    synapse = layer(name="synapse", region="synapse", density_per_um3=20000, stained="after_expansion")
    made: dict[str, Any] = {
        "crop": spec(stored, crop={"offset": [7, 11, 13], "shape": [40, 50, 60]}),
        "model of 2017": small_2017(labeling_density=0.5) | {"source": str(stored)},
        "phantom": tiny(layer(), synapse, source={"kind": "phantom", "shape": [40, 90, 90]}),
    }
    simulation = Simulation.from_mapping(made[kind])
    result = simulation.run(tmp_path / "out.zarr", client=client, until=until, quiet=True)
    z, y, x = simulation.plan(until=until).shape
    for at in ((0, y - 1, 0), (z // 2, y // 2, x // 3)):
        preview = simulation.preview(at=at, shape=(5, 21, 30), until=until)
        image, ids = there(preview, result)
        np.testing.assert_array_equal(preview.image, image)
        np.testing.assert_array_equal(preview.labels, ids)
        assert preview.image.std() > 0


def test_of_each_round(stored: Path, client: distributed.Client, tmp_path: Path) -> None:
    source = {"path": str(stored), "voxel_size_nm": list(VOXEL_NM)}
    simulation = Simulation.from_mapping(rounds_build.spec(source, rounds=2)).with_tile((8, 20, 32))
    result = simulation.run(tmp_path / "rounds.zarr", client=client, quiet=True)
    for number in (1, 2):
        preview = simulation.preview(at=(4, 2, 40), shape=(3, 30, 30), round=number)
        image, ids = there(preview, result.at(round=number))
        np.testing.assert_array_equal(preview.image, image)
        np.testing.assert_array_equal(preview.labels, ids)
        assert f"round {number}" in preview.picture.title


def test_the_picture_shows_them(simulation: Simulation, result: Result, tmp_path: Path) -> None:
    """All four panels of the file, but for the half of the first over which names and the scale bar are written."""
    preview = simulation.preview(at=(9, 40, 30))
    preview.save(tmp_path / "seen.png")
    sheet = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    image, ids = there(preview, result)
    k, j = preview.at[0] - preview.box.start[0], preview.at[1] - preview.box.start[1]
    shown = preview.picture
    top = drawing.TITLE + drawing.CAPTION
    for plane, truth in ((image[:, k], ids[k]), (image[:, :, j], ids[:, j])):
        z, y, x = shown.pixel_um
        rows, columns = truth.shape
        high = round(drawing.PANEL * rows * (y if plane.shape == image[:, k].shape else z) / (columns * x))
        picked = (np.arange(n) * 2 + 1 for n in (rows, columns))
        at = [c * size // (2 * n) for c, size, n in zip(picked, (high, drawing.PANEL), (rows, columns), strict=True)]
        for side, wanted in enumerate((merged(plane, shown.colors, shown.windows), id_colors(truth))):
            left = drawing.MARGIN + side * (drawing.PANEL + drawing.MARGIN)
            found = sheet[top : top + high, left : left + drawing.PANEL][at[0][:, None], at[1]]
            seen = slice(columns // 2, None)
            np.testing.assert_array_equal(found[:, seen], np.rint(wanted * 255)[:, seen])
        top += high + drawing.CAPTION


def typed(*words: str | Path, columns: int, cwd: Path) -> str:
    """What the command prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(columns)}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "simexm.cli", *map(str, words)]
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL
    ) as run:
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not part:
                break
            text += part
    os.close(ours)
    assert run.returncode == 0
    return text.decode()


def pixels_of(text: str) -> NDArray[np.int64]:
    """Colours of what half blocks show, (rows, columns, 3)."""
    lines = [line for line in text.splitlines() if "▀" in line]
    rows = []
    for line in lines:
        cells = [([int(n) for n in m.groups()[:6]], len(m[7])) for m in CELL.finditer(line)]
        for half in (slice(0, 3), slice(3, 6)):
            rows.append([color[half] for color, times in cells for _ in range(times)])
    return np.array(rows)


def test_the_terminal_shows_them(simulation: Simulation, result: Result, tmp_path: Path) -> None:
    simulation.save(tmp_path / "my.yaml")
    words = ("preview", "my.yaml", "--at", "9", "40", "30")
    shown = pixels_of(typed(*words, columns=200, cwd=tmp_path))
    preview = simulation.preview(at=(9, 40, 30))
    plane = there(preview, result)[0][:, 9 - preview.box.start[0]]
    wanted = np.rint(merged(plane, preview.picture.colors, preview.picture.windows) * 255)
    assert wanted.std() > 10
    np.testing.assert_array_equal(shown[: len(wanted)], wanted)
    assert (tmp_path / "my-preview.png").is_file()


def test_a_narrow_terminal_shows_means(simulation: Simulation) -> None:
    picture = simulation.preview(shape=(1, 40, 40)).picture
    text = in_cells(picture, 20)
    assert {len(line) for line in text.plain.splitlines()} == {20}
    assert len(text.plain.splitlines()) == 10
    wanted = merged(picture.across, picture.colors, picture.windows).reshape(20, 2, 20, 2, 3).mean(axis=(1, 3))
    colors = [[int(n) for n in re.findall(r"\d+", str(span.style))] for span in text.spans]
    shown = np.array(colors).reshape(10, 20, 2, 3).swapaxes(1, 2).reshape(20, 20, 3)
    np.testing.assert_allclose(shown, wanted * 255, atol=0.51)


@pytest.mark.parametrize("size", [(300, 1500, 900), (40, 90, 90)])
@settings(max_examples=30, deadline=None)
@given(part=st.tuples(*(st.floats(0, 0.999),) * 3))
def test_usual_box_costs_no_tile_that_it_does_not_show(size: Triple, part: tuple[float, float, float]) -> None:
    plan = _plan(size)
    at = tuple(int(p * n) for p, n in zip(part, plan.shape, strict=True))
    z, y, x = at
    box = box_of(plan, (z, y, x))
    assert box.contains(Box.at((z, y, x), (1, 1, 1)))
    assert Box.of_shape(plan.shape).contains(box)
    assert all(n <= most for n, most in zip(box.shape, USUAL, strict=True))
    for tile in tiles_of(plan, box):
        assert (tile.start[1] >= box.start[1]) & (tile.start[2] >= box.start[2])
        assert (tile.stop[1] <= box.stop[1]) & (tile.stop[2] <= box.stop[2])


PLANS: dict[Triple, Any] = {}


def _plan(size: Triple) -> Any:
    """Of a phantom of this size, made once."""
    if size not in PLANS:
        source = {"kind": "phantom", "shape": list(size)}
        PLANS[size] = Simulation.from_mapping({**spec("memory"), "source": source}).plan()
    return PLANS[size]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"at": (0, 0, 900)}, "the pixel 0 0 900 is outside the image"),
        ({"at": (-1, 0, 0)}, "outside the image"),
        ({"shape": (0, 9, 9)}, "give at least 1"),
        ({"round": 2}, "there is no round 2: the plan has one image and no rounds"),
        ({"round": 0}, "there is no round 0"),
    ],
)
def test_what_is_not_there_is_refused(wrong: dict[str, Any], told: str, simulation: Simulation) -> None:
    with pytest.raises(SpecError, match=told):
        simulation.preview(**wrong)
