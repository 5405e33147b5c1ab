"""`simexm view`: what a real browser shows of results, and what it takes to be shown."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.result.result import Result
from simexm.view.picture import merged
from tests import rounds_build
from tests.model2017 import small_2017
from tests.run.conftest import labels as labels
from tests.run.conftest import spec, stored
from tests.view.browser import Course, browsing, pixels

__all__ = ["labels", "stored"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")]

LEFT, TOP, RIGHT, BOTTOM = 30, 140, 1170, 780
"""The part of the page that is not covered by bars."""
WAIT_S = 120.0
"""Long, for machines that do much else."""


@dataclass
class Shown:
    """A page of `simexm view`."""

    page: Any
    said: str
    program: subprocess.Popen[str]
    course: Course
    requests: list[str] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Any]:
        """What it shows."""
        found: dict[str, Any] = self.page.evaluate("JSON.parse(JSON.stringify(viewer.state.toJSON()))")
        return found  # without what is undefined

    @property
    def panels(self) -> list[list[float]]:
        """Left, top, width and height of each on the page."""
        found: list[list[float]] = self.page.evaluate(
            """[...document.querySelectorAll(".neuroglancer-rendered-data-panel")].map(panel => {
                const box = panel.getBoundingClientRect();
                return [box.left, box.top, box.width, box.height];
            })"""
        )
        return found

    def only(self, *names: str) -> None:
        """Show these layers and no others."""
        assert set(names) <= {each["name"] for each in self.state["layers"]}
        self.page.evaluate(
            "names => viewer.layerManager.managedLayers.forEach(each => each.setVisible(names.includes(each.name)))",
            names,
        )

    def tells(self, text: str) -> None:
        """Wait for a text on the page."""
        self.until(lambda: text in self.page.inner_text("body"), f"the page does not tell {text}")

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for the page to draw."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}\n{self.course}"
            self.page.wait_for_timeout(300)  # unlike sleep, it lets the page tell what happens


@contextmanager
def viewing(browser: Any, *words: object) -> Iterator[Shown]:
    """What `simexm view --no-browser` shows."""
    command = [sys.executable, "-m", "simexm.cli", "view", "--no-browser", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as program:
        try:
            said = ""
            assert program.stdout is not None
            while "Ctrl-C" not in said:
                line = program.stdout.readline()
                assert line, said
                said += line
            address = re.search(r"view: (http\S+)", said)
            assert address, said
            page = browser.new_page(viewport={"width": 1200, "height": 800})
            shown = Shown(page, said, program, Course(page))
            page.on("request", lambda request: shown.requests.append(request.url))
            page.goto(address.group(1))
            there = "window.viewer && viewer.state.toJSON().layers?.length && viewer.state.toJSON().dimensions?.x"
            page.wait_for_function(there, timeout=1000 * WAIT_S)
            yield shown
            page.close()
        finally:
            program.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def small(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished result whose ground truth is there."""
    path = tmp_path_factory.mktemp("viewed") / "small.zarr"
    return Simulation.from_mapping(spec(stored)).run(path, quiet=True)


def on_page(shown: Shown, result: Result, plane: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Show one plane alone and return what takes pixels' (row, column) to the page's (x, y)."""
    shape = np.array(result.array().shape[-2:], float)
    zoom = 8
    shown.page.evaluate(
        """([position, share]) => {
            viewer.layout.restoreState("xy");
            viewer.position.value = Float32Array.from(position);
            viewer.crossSectionScale.value *= share;
            viewer.showAxisLines.value = viewer.showDefaultAnnotations.value = false;
        }""",
        [[shape[1] / 2, shape[0] / 2, plane + 0.5], 1 / zoom / shown.state["crossSectionScale"]],
    )
    (box,) = shown.panels
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    return lambda where: centre + (where[..., ::-1] + 0.5 - shape[::-1] / 2) * zoom


def picked(where: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """The page's colours at places, (n, 3), 0 to 1."""
    x, y = np.floor(places).astype(int).T
    found: NDArray[Any] = where[y, x] / 255
    return found


def inner(result: Result) -> NDArray[Any]:
    """Pixels that are not covered by bars, (n, 2)."""
    rows, columns = result.array().shape[-2:]
    grid: Any = np.meshgrid(np.arange(4, rows - 4), np.arange(10, columns - 10), indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 2)


def shows_counts(shown: Shown, result: Result, plane: int, place: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Wait until each pixel of a plane is of the colour of its counts in all channels."""
    channels, where = result.channels, inner(result)
    windows = [(c["window"]["start"], c["window"]["end"]) for c in channels]
    wanted = merged(np.asarray(result.array()[:, plane]), [c["color"] for c in channels], windows)
    wanted = wanted[where[:, 0], where[:, 1]]
    assert wanted.std() > 0.1

    def as_counted() -> bool:
        difference = np.abs(picked(pixels(shown.page), place(where)) - wanted).max(axis=1)
        return bool(np.mean(difference < 0.02) > 0.99)

    shown.until(as_counted, "the image's pixels are not of the colours of their counts")


def test_pixels_cells_and_truth(browser: Any, small: Result) -> None:
    """Every pixel's colour is that of its counts, every cell is of one colour and tells its id, at their own places."""
    with viewing(browser, small.path) as shown:
        assert f"ssh -L {shown.page.url.split(':')[2].split('/')[0]}:127.0.0.1:" in shown.said
        assert "warning" not in shown.said
        names = ["green", "red", "labels/cells", "labels/membrane", "labels/cytosol", "ground truth"]
        assert [each["name"] for each in shown.state["layers"]] == names
        plane = small.array().shape[1] // 2
        place = on_page(shown, small, plane)
        where = inner(small)
        shown.only("green", "red")
        shows_counts(shown, small, plane, place)

        ids = np.asarray(small.array(0, "labels/cells")[plane])[where[:, 0], where[:, 1]]
        for layer in ("labels/cells", "ground truth"):
            shown.only(layer)

            def by_cell() -> bool:
                colors = np.rint(picked(pixels(shown.page), place(where)) * 255).astype(int) @ [65536, 256, 1]
                main = {i: np.bincount(colors[ids == i]).argmax() for i in np.unique(ids)}
                alone = np.mean([main[i] == c for i, c in zip(ids, colors, strict=True)])
                dark = main.pop(0, 0) == 0
                # voxels of the truth are finer than pixels, whose label is that of the voxel at their centre
                return bool(alone > 0.99 and dark and 0 not in main.values() and len(set(main.values())) == len(main))

            shown.until(by_cell, f"{layer} does not show each cell in a colour of its own")
            for i in np.unique(ids)[1:4]:
                x, y = place(where[ids == i][len(where[ids == i]) // 2])
                shown.page.mouse.move(x, y)
                shown.tells(str(i))
        assert all(url.startswith(("http://127.0.0.1:", "blob:", "data:")) for url in shown.requests)
        mine = psutil.Process(shown.program.pid).net_connections()
        assert {c.laddr.ip for c in mine if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}

        shown.program.send_signal(signal.SIGINT)
        assert shown.program.wait(20) == 0
        assert shown.program.stdout is not None
        assert shown.program.stdout.read() == "ended\n"


@pytest.mark.parametrize("kind", ["expected", "labelled", "model 2017"])
def test_other_quantities(kind: str, browser: Any, stored: Path, tmp_path: Path) -> None:
    """Electrons as floating-point numbers, dyes per pixel, and counts of 32 bits are shown as truly."""
    data = small_2017() | {"source": str(stored)} if kind == "model 2017" else spec(stored)
    until = {"expected": "confocal", "labelled": "labelling"}.get(kind)
    result = Simulation.from_mapping(data).run(tmp_path / "other.zarr", until=until, quiet=True)
    with viewing(browser, result.path) as shown:
        plane = result.array().shape[1] // 2
        place = on_page(shown, result, plane)
        shown.only(*(c["label"] for c in result.channels))
        shows_counts(shown, result, plane, place)


def test_side_by_side_and_linked(browser: Any, small: Result) -> None:
    """Two views of one result show the same, and go on doing so when one of them is moved."""
    with viewing(browser, small.path, small.path) as shown:
        assert {each["name"].split(": ")[0] for each in shown.state["layers"]} == {"small (1)", "small (2)"}

        def halves() -> tuple[NDArray[Any], NDArray[Any]]:
            both = pixels(shown.page)[200:740]
            first, second = (int(left + width / 2) for left, _, width, _ in shown.panels)
            return both[:, first - 270 : first + 270], both[:, second - 270 : second + 270]

        def alike() -> bool:
            left, right = halves()
            return bool(left.std() > 20 and np.mean(np.abs(left.astype(int) - right) > 8) < 0.03)

        shown.until(alike, "the two sides differ, or are black")
        before, _ = halves()
        shown.page.mouse.move(250, 400)
        shown.page.mouse.down()
        shown.page.mouse.move(310, 430, steps=4)
        shown.page.mouse.up()
        shown.until(
            lambda: alike() and np.mean(np.abs(before.astype(int) - halves()[0]) > 8) > 0.2,
            "the sides do not move together",
        )


def test_while_a_run_goes_on(browser: Any, stored: Path, tmp_path: Path) -> None:
    """What is done is shown, what is not is told; after Ctrl-C of the run, too."""
    output = tmp_path / "part.zarr"
    Simulation.from_mapping(spec(stored)).with_tile((2, 12, 12)).save(tmp_path / "my.yaml")
    words = ["run", "my.yaml", "--workers", "1", "-o", output.name, "-q"]
    with subprocess.Popen([sys.executable, "-W", "ignore", "-m", "simexm.cli", *words], cwd=tmp_path) as driver:
        while not [*(tmp_path / "part.run" / "journal").glob("*.jsonl")]:
            assert driver.poll() is None
            time.sleep(0.05)
        driver.send_signal(signal.SIGSTOP)
        try:
            with viewing(browser, output) as shown:
                told = re.search(r"part.zarr is incomplete \(it is running\): (\d+) of 18 blocks are done", shown.said)
                assert told
                assert 0 < int(told.group(1)) < 18
                shown.only("green", "red")
                shown.until(
                    lambda: pixels(shown.page)[TOP:BOTTOM, LEFT:RIGHT].max(axis=-1).std() > 10, "nothing is shown"
                )
        finally:
            driver.kill()


def test_rounds_and_what_cannot_be_reached(browser: Any, tmp_path: Path) -> None:
    """Each round's channels are layers; without the ground truth, which is told, the cells of the image are shown."""
    import zarr

    source = tmp_path / "labels.zarr"
    ids = rounds_build.cells()
    zarr.create_array(source, data=ids)
    named = {"path": str(source), "voxel_size_nm": list(rounds_build.VOXEL_NM)}
    result = Simulation.from_mapping(rounds_build.spec(named)).run(tmp_path / "rounds.zarr", quiet=True)
    source.rename(tmp_path / "gone.zarr")
    with viewing(browser, result.path) as shown:
        assert "the ground truth cannot be opened" in shown.said
        layers = {each["name"]: each for each in shown.state["layers"]}
        images = [f"round {n} {c}" for n in (1, 2, 3) for c in ("A", "stain", "C")]
        assert [*layers] == [*images, "labels/cells", "labels/stain"]
        assert {n for n, each in layers.items() if each.get("visible", True) and not each.get("archived")} == {
            *images[:3],
            "labels/cells",
        }
        plane = result.array().shape[1] // 2
        place, where = on_page(shown, result, plane), inner(result)
        for name in ("round 2 C", "round 1 C"):
            shown.only(name)
            counts = np.asarray(result.array(round=int(name[6]))[2, plane])[where[:, 0], where[:, 1]].astype(float)

            def as_counted(counts: NDArray[Any] = counts) -> bool:
                shade = picked(pixels(shown.page), place(where)).max(axis=1)
                return bool(shade.std() > 0 and np.corrcoef(shade, counts)[0, 1] > 0.7)

            shown.until(as_counted, f"{name} does not show its own round")
