"""What notebooks show of simulations, plans, previews and results: pictures and tables that hold no script and no address."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from PIL import Image

from simexm.api import Simulation
from simexm.result.result import Result
from simexm.view.picture import draw, picture_of
from simexm.view.rows import plan_rows, result_rows
from tests import rounds_build
from tests.model2017 import small_2017
from tests.run.conftest import VOXEL_NM, labels, spec, stored
from tests.view.browser import browsing

__all__ = ["labels", "stored"]

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

HOSTILE = '"><script>alert(1)</script><img src=http://x.example onerror=alert(2)>'
KINDS = ["image", "labelling", "model 2017", "rounds"]
DRAWN = {"image": 2, "labelling": 2, "model 2017": 1, "rounds": 3}


class Page(HTMLParser):
    """Elements with their attributes, and text; every element that is begun is ended."""

    VOID = frozenset({"img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.said.append(data.strip())


def is_safe(text: str) -> Page:
    """Nothing runs, nothing is fetched, and what is not the page's own is text."""
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= {
        "div", "b", "table", "tr", "th", "td", "img", "svg", "title", "rect", "path", "g", "defs", "clippath", "use", "text",
        "style",
    }  # fmt: skip
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/png;base64,", "#"))
    own = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "url(http" not in own
    assert "@import" not in own
    return page


@pytest.fixture(scope="module")
def simulations(stored: Path) -> dict[str, Simulation]:
    named = {"path": str(stored), "voxel_size_nm": list(VOXEL_NM)}
    usual = Simulation.from_mapping(spec(stored, name=HOSTILE, execution={"min_blocks": 4}))
    model = Simulation.from_mapping(small_2017() | {"source": str(stored)})
    return {
        "image": usual,
        "labelling": usual,
        "model 2017": model,
        "rounds": Simulation.from_mapping(rounds_build.spec(named)),
    }


@pytest.fixture(scope="module")
def results(
    simulations: dict[str, Simulation], client: distributed.Client, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("shown")
    return {
        kind: simulation.run(folder / f"{n}.zarr", client=client, until=_until(kind), quiet=True)
        for n, (kind, simulation) in enumerate(simulations.items())
    }


def _until(kind: str) -> str | None:
    return "labelling" if kind == "labelling" else None


def html(thing: Any) -> str:
    """What IPython asks for."""
    text: str = thing._repr_html_()
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_simulations_show_their_light_and_stages(kind: str, simulations: dict[str, Simulation]) -> None:
    simulation = simulations[kind]
    page = is_safe(html(simulation))
    assert simulation.name in page.said
    assert sum(tag == "svg" for tag, _ in page.elements) == DRAWN[kind]
    for stage in simulation.stages:
        assert stage.model_dump()["stage"] in page.said


@pytest.mark.parametrize("kind", KINDS)
def test_plans_show_their_blocks(kind: str, simulations: dict[str, Simulation]) -> None:
    plan = simulations[kind].plan(until=_until(kind))
    page = is_safe(html(plan))
    for what, value in plan_rows(plan):
        assert what in page.said
        assert value in page.said
    assert plan.hash in repr(plan)
    assert len(repr(plan).splitlines()) == 1
    _, rows, columns = plan.blocks.counts
    assert sum(tag == "path" for tag, _ in page.elements) == rows - 1 + columns - 1


@pytest.mark.parametrize("kind", KINDS)
def test_results_show_their_picture(kind: str, results: dict[str, Result]) -> None:
    result = results[kind]
    page = is_safe(html(result))
    for what, value in result_rows(result):
        assert what in page.said
        assert value in page.said
    (shown,) = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    found = Image.open(io.BytesIO(base64.b64decode(str(shown).partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(draw(picture_of(result))))


def test_previews_show_theirs(simulations: dict[str, Simulation]) -> None:
    preview = simulations["image"].preview(shape=(2, 20, 20))
    page = is_safe(html(preview))
    assert str(preview) in page.said
    assert str(preview) in repr(preview)
    assert [tag for tag, _ in page.elements].count("img") == 1


def test_source_and_codebook_are_text(simulations: dict[str, Simulation], stored: Path, tmp_path: Path) -> None:
    place = tmp_path / HOSTILE.replace("/", "") / "cells.zarr"
    shutil.copytree(stored, place)
    simulation = simulations["image"].replace(source=str(place))
    assert str(place) in is_safe(html(simulation)).said
    is_safe(html(simulation.plan()))


def test_a_result_that_is_not_whole(results: dict[str, Result], tmp_path: Path) -> None:
    """One that never ended says so; one that lost files is shown by its plain repr."""
    shutil.copytree(results["image"].path, tmp_path / "lost.zarr")
    shutil.rmtree(tmp_path / "lost.zarr" / "labels")
    assert Result.open(tmp_path / "lost.zarr")._repr_html_() is None
    torn = Result.open(results["image"].path)
    torn = Result(torn.place, {"simexm": {**torn.provenance, "status": "incomplete"}})
    assert any("incomplete" in text for text in is_safe(html(torn)).said)


@pytest.mark.parametrize(
    ("ink", "paper"), [("rgb(20, 20, 20)", "rgb(255, 255, 255)"), ("rgb(220, 220, 220)", "rgb(17, 17, 17)")]
)
def test_colours_are_the_notebooks(
    ink: str, paper: str, simulations: dict[str, Simulation], results: dict[str, Result], tmp_path: Path
) -> None:
    """In a real browser: text is of the theme's ink on the theme's paper, and nothing asks the network for anything."""
    simulation = simulations["rounds"]
    shown = "".join(html(thing) for thing in (simulation, simulation.plan(), results["image"]))
    path = tmp_path / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body style="color: {ink}; background: {paper}">{shown}')
    with browsing() as browser:
        page = browser.new_page(viewport={"width": 600, "height": 900})
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        assert [r for r in requests if not r.startswith("data:")] == [path.as_uri()]
        for what in ("td", "th", "b"):
            colors = page.eval_on_selector_all(what, "all => all.map(e => getComputedStyle(e).color)")
            assert set(colors) == {ink}
        grounds = "all => all.map(e => getComputedStyle(e).backgroundColor)"
        assert set(page.eval_on_selector_all("td, tr, table", grounds)) == {"rgba(0, 0, 0, 0)"}
        written = page.eval_on_selector_all("svg text", "all => all.map(e => getComputedStyle(e).fill)")
        assert set(written) == {ink, "rgb(128, 128, 128)"}
        assert page.evaluate("document.documentElement.scrollWidth") <= 600
        page.close()
