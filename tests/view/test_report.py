"""`simexm report`: one page that tells the truth about a result of any kind, needs nothing beside itself, and fits its paper."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.jobs.journal import Record
from simexm.result.result import Result
from simexm.view.report import cells as cells_of
from simexm.view.report import page
from simexm.view.report.counts import strengths
from simexm.view.report.running import read_running
from simexm.view.run_record import RunRecord
from tests import rounds_build
from tests.build import confocal, layer
from tests.build import spec as tiny_spec
from tests.model2017 import small_2017
from tests.run.conftest import VOXEL_NM, labels, spec, stored
from tests.view.browser import browsing, pixels

__all__ = ["labels", "stored"]

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

KINDS = ["image", "confocal", "labelling", "model 2017", "rounds"]


@pytest.fixture(scope="module")
def results(stored: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """One result of each kind."""
    folder = tmp_path_factory.mktemp("reported")
    usual = Simulation.from_mapping(spec(stored, execution={"min_blocks": 4}))
    part = {"crop": {"shape": [30, 48, 48]}}
    model = Simulation.from_mapping(small_2017() | {"source": str(stored)} | part)
    named = {"path": str(stored), "voxel_size_nm": list(VOXEL_NM)}
    rounds = Simulation.from_mapping(rounds_build.spec(named, rounds=2) | part)

    def run(simulation: Simulation, name: str, until: str | None = None) -> Result:
        return simulation.run(folder / f"{name}.zarr", until=until, client=client, quiet=True)

    return {
        "image": run(usual, "image"),
        "confocal": run(usual, "expected", "confocal"),
        "labelling": run(usual, "labelled", "labelling"),
        "model 2017": run(model, "model2017"),
        "rounds": run(rounds, "rounds"),
    }


@pytest.fixture(scope="module")
def pages(results: dict[str, Result], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each, as the command writes it."""
    folder = tmp_path_factory.mktemp("pages")
    written = {}
    for kind, result in results.items():
        path = folder / f"{kind.replace(' ', '-')}.html"
        done = CliRunner().invoke(app, ["report", str(result.path), "--output", str(path)])
        assert done.exit_code == 0, done.output
        assert done.stdout == f"report: {path}\n"
        written[kind] = path
    return written


class Reader(HTMLParser):
    """What a page refers to, its headings, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object")
        for name, value in attrs:
            if name in ("href", "xlink:href", "src", "srcset"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_stands_alone_and_can_be_made_again(
    kind: str, pages: dict[str, Path], results: dict[str, Result]
) -> None:
    """It refers to nothing outside, is well formed, and its spec is the result's: it has the same parameter hash."""
    html = pages[kind].read_text(encoding="utf-8")
    read = Reader(html)
    assert not read.open
    assert len(read.ids) == len(set(read.ids))
    inside = {f"#{name}" for name in read.ids}
    assert all(r.startswith("data:image/png;base64,") or r in inside for r in read.references)
    assert not re.search(r"@import|url\((?!#)", html)
    result, text = results[kind], "".join(read.text)
    assert result.provenance["hash"] in text
    again = Simulation.from_mapping(_spec_of(html))
    until = re.search(r"simexm run \S+ --output \S+(?: --until (\w+))?", text)
    assert until
    assert again.plan(until=until.group(1)).hash == result.provenance["hash"]
    cells = result.cells()
    assert page.number(cells.num_rows) in text
    for n in result.array().shape[1:]:
        assert str(n) in text


def _spec_of(html: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(unescape(html.rpartition("<pre>")[2].partition("</pre>")[0]))
    return found


def test_what_has_no_meaning_is_left_out(pages: dict[str, Path]) -> None:
    heads = {k: re.findall(r"<h[23]>(.*?)</h[23]>", path.read_text(encoding="utf-8")) for k, path in pages.items()}
    all_of = [
        "Picture",
        "Light",
        "Point spread function",
        "Counts",
        "Signal to noise",
        "Labelled cells",
        "Brightest cells",
        "Run",
    ]
    last = ["To reproduce it"]
    assert heads["image"] == all_of + last
    assert heads["confocal"] == ["Values" if h == "Counts" else h for h in all_of] + last
    assert heads["labelling"] == ["Picture", "Values", "Labelled cells", "Brightest cells", "Run", *last]
    assert heads["model 2017"] == [h for h in all_of if h not in ("Point spread function", "Signal to noise")] + last
    assert heads["rounds"] == ["Picture", "Rounds", *all_of[1:], *last]


def test_a_page_without_its_run_and_its_labels(results: dict[str, Result], tmp_path: Path) -> None:
    """Of a result that was copied alone, what its own files tell is told."""
    copy = tmp_path / "copy.zarr"
    shutil.copytree(results["image"].path, copy)
    html = page.render(Result.open(copy))
    assert re.findall(r"<h[23]>(.*?)</h[23]>", html) == ["Picture", "Counts", "To reproduce it"]


def test_signal_to_noise_follows_the_light(stored: Path, client: distributed.Client, tmp_path: Path) -> None:
    """Without a detector's noise, four times the light is four times the signal, over twice the noise."""
    told = {}
    for power in (1.0, 4.0):
        changed = spec(stored, crop={"shape": [40, 56, 64]})
        for channel in changed["stages"][3]["channels"]:
            channel["laser_power_uW"] = power
        run = Simulation.from_mapping(changed).run(
            tmp_path / f"{power}.zarr", until="confocal", client=client, quiet=True
        )
        record = RunRecord.of(run)
        assert record
        found, unknown = strengths(run, record)
        assert unknown == []
        told[power] = {s.layer: s for s in found}
    assert [(s.layer, s.channel, s.where) for s in told[1.0].values()] == [
        ("membrane", "green", "cell borders"),
        ("cytosol", "red", "inside cells"),
    ]
    for name, dim in told[1.0].items():
        bright = told[4.0][name]
        assert bright.signal_e == pytest.approx(4 * dim.signal_e, rel=0.02)
        assert bright.ratio == pytest.approx(2 * dim.ratio, rel=0.02)
        assert dim.signal_e > 0


def test_signal_of_the_camera_is_that_of_the_light(results: dict[str, Result]) -> None:
    """From counts, signals are those of the noise-free image, and the background holds the stray light besides."""
    found = {}
    for kind in ("image", "confocal"):
        record = RunRecord.of(results[kind])
        assert record
        found[kind] = {s.layer: s for s in strengths(results[kind], record)[0]}
    for name, s in found["image"].items():
        free = found["confocal"][name]
        assert s.signal_e == pytest.approx(free.signal_e, rel=0.03)
        assert s.background_e == pytest.approx(free.background_e + 1, rel=0.1)  # stray_light_e of the spec
        assert s.noise_e**2 == pytest.approx(s.signal_e + s.background_e + 1.5**2, rel=0.001)


@pytest.mark.parametrize(
    "optics",
    [
        confocal(numerical_aperture=0.7, axial_range_um=6, pinhole_airy_units=3),
        confocal(numerical_aperture=0.7, axial_range_um=6, pinhole_airy_units=0.2),
        confocal(
            stage="widefield", numerical_aperture=0.7, axial_range_um=6,
            channels=[{"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 5}],
        ),
        confocal(
            stage="light_sheet", numerical_aperture=0.7, axial_range_um=6, sheet_waist_um=1.2,
            channels=[{"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 5}],
        ),
        confocal(
            stage="two_photon", numerical_aperture=0.7, axial_range_um=6, repetition_MHz=80, pulse_fs=150,
            channels=[{"name": "green", "laser_wavelength_nm": 800, "band_nm": [500, 550], "laser_power_uW": 1000}],
        ),
    ],
    ids=["open pinhole", "closed pinhole", "widefield", "light sheet", "two photons"],
)  # fmt: skip
def test_widths_are_near_the_textbook(optics: dict[str, Any]) -> None:
    """At low aperture, where the textbook's formulas hold, within a fifth of them."""
    from simexm.sources.arrays import ArrayVolume
    from simexm.stages.microscope.optics import Optics
    from simexm.stages.microscope.optics_plan import OpticsPlan
    from simexm.view.report.light import spreads

    dyes = {"bright": {"like": "ATTO488", "two_photon_GM": 50.0}}
    simulation = Simulation.from_mapping(tiny_spec(layer(dye="bright"), optics=optics, dyes=dyes))
    ids = np.ones((60, 16, 16), np.uint16)
    made = simulation.plan(source=ArrayVolume(ids, (40, 32, 32)))
    microscope, imaging = simulation.microscope, made.imaging.formation
    assert isinstance(microscope, Optics)
    assert isinstance(imaging, OpticsPlan)
    (found,) = spreads(microscope, imaging.pairs, simulation)
    assert found.axial_nm
    assert found.lateral_nm == pytest.approx(float(found.textbook_lateral), rel=0.2)
    assert found.axial_nm == pytest.approx(float(found.textbook_axial), rel=0.2)
    assert "<svg" in found.figure


def test_cells_are_summed_in_pieces(
    results: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums do not depend on the pieces, and are those of the table."""
    table = results["image"].cells()
    whole = cells_of.read_cells(results["image"])
    monkeypatch.setattr(cells_of, "_ROWS", 7)
    pieces = cells_of.read_cells(results["image"])
    assert whole
    assert pieces
    assert pieces.number == whole.number == table.num_rows
    assert pieces.dyes == whole.dyes == {n: sum(table[f"dyes_{n}"].to_pylist()) for n in ("membrane", "cytosol")}
    assert pieces.labelled == {
        n: sum(n in text.split(",") for text in table["layers"].to_pylist()) for n in ("membrane", "cytosol")
    }
    light = np.array(table["photons_green"]) + np.array(table["photons_red"])
    brightest = [table["id"].to_pylist()[i] for i in np.argsort(-light)[:8]]
    assert [row["id"] for row in pieces.brightest] == [row["id"] for row in whole.brightest] == brightest
    assert all((pieces.photons[c] == whole.photons[c]).all() for c in ("green", "red"))


def test_the_run_is_summed_over_its_journal() -> None:
    def records() -> Iterator[Record]:
        for n in range(40):
            yield Record(n, 1 + n % 3, f"node{n % 4}", 2.0, 1000.0 + 10 * n, {"peak_bytes": 1000 + n})

    found = read_running(records)
    assert found
    assert (found.blocks, found.retried, found.attempts, found.hosts) == (40, 26, 3, 4)
    assert (found.begin, found.end, found.work_s, found.longest_s, found.peak_bytes) == (998, 1390, 80, 2, 1039)
    assert found.done.sum() == 40
    assert read_running(lambda: iter(())) is None


def test_what_cannot_be_reported(results: dict[str, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = str(results["image"].path)
    for words, told in (
        (["none.zarr"], "none.zarr does not exist; `simexm run"),
        ([good, "-o", "a.pdf"], "the report a.pdf is HTML; type --output a.html"),
        ([good, "-o", "none/a.html"], "no folder none; type: mkdir -p none"),
    ):
        done = CliRunner().invoke(app, ["report", *words])
        assert done.exit_code == 2
        assert told in done.stderr
    part = tmp_path / "part.zarr"
    part.mkdir()
    about = {"attributes": {"simexm": {"hash": "x", "status": "incomplete"}}, "zarr_format": 3, "node_type": "group"}
    (part / "zarr.json").write_text(json.dumps(about))
    done = CliRunner().invoke(app, ["report", "part.zarr"])
    assert done.exit_code == 2
    assert "is incomplete; type the `simexm run` command again" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["part.zarr"]


# -------------------------------------------------------------------- in a real browser

PRINTABLE_PX = 680
"""Width of A4 paper between the page's margins, in CSS pixels."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as found:
        yield found


def _open(browser: Any, path: Path, width: int, scheme: str = "light") -> Any:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: pytest.fail(message.text))
    opened.goto(path.as_uri())
    assert all(url.startswith("data:") or url == path.as_uri() for url in asked)
    return opened


OVERFLOWING = """[
    ...[...document.querySelectorAll("main *:not(svg *)")].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5),
    ...[...document.querySelectorAll("main svg text")].filter(e => {
        const text = e.getBoundingClientRect(), box = e.closest("svg").getBoundingClientRect();
        return text.left < box.left - 1 || text.right > box.right + 1 || text.top < box.top - 1 || text.bottom > box.bottom + 1;
    }),
].map(e => e.outerHTML.slice(0, 120))"""
"""Elements wider than the page, and words that are cut off at a figure's edge."""
SMALLEST = """Math.min(...[...document.querySelectorAll("main svg text, main td, main p, main dd, main small, main pre")].map(e => {
    const box = e.closest("svg"); const size = parseFloat(getComputedStyle(e).fontSize);
    return box ? size * box.getBoundingClientRect().width / box.viewBox.baseVal.width : size;
}))"""
"""Height of the smallest text, CSS pixels, as it is shown."""


def _grey(image: NDArray[np.uint8]) -> float:
    """Brightness of the page's corner; a letter may stand there."""
    return float(np.median(image[:12, :12]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_phone_on_paper_in_light_and_in_the_dark(kind: str, pages: dict[str, Path], browser: Any) -> None:
    """Nothing is wider than the phone or the paper, all can be read, pictures show something, and printing loses nothing."""
    phone = _open(browser, pages[kind], 375)
    assert phone.evaluate("document.documentElement.scrollWidth") == 375
    assert phone.evaluate(OVERFLOWING) == []
    assert phone.evaluate(SMALLEST) > 8.9
    assert _grey(pixels(phone)) > 240
    picture = phone.locator("svg.picture").first
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    seen = pixels(phone)[int(box["y"]) : int(box["y"] + 100), int(box["x"]) : int(box["x"] + 100)]
    assert seen.std() > 10

    dark = _open(browser, pages[kind], 1280, "dark")
    assert _grey(pixels(dark)) < 40
    assert dark.evaluate(OVERFLOWING) == []
    assert dark.evaluate("parseInt(getComputedStyle(document.querySelector('svg text')).fill.slice(4))") > 150

    paper = _open(browser, pages[kind], PRINTABLE_PX, "dark")
    paper.emulate_media(media="print")
    assert _grey(pixels(paper)) > 240  # not even where the screen is dark
    assert paper.evaluate(OVERFLOWING) == []
    assert paper.evaluate("[...document.querySelectorAll('main *')].filter(e => e.scrollHeight > e.clientHeight + 2"
                          " && getComputedStyle(e).overflowY != 'visible').map(e => e.outerHTML.slice(0, 80))") == []  # fmt: skip
    high = paper.evaluate("document.documentElement.scrollHeight")
    printed = paper.pdf(prefer_css_page_size=True, print_background=True)
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert sheets >= max(2, high // 1100)
    assert sheets <= high / 1000 * 1.6 + 2  # no page that is nearly empty
