"""Movies play at the speed of the recording, in the window and in notebooks."""

from __future__ import annotations

import base64
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backend_bases import KeyEvent
from matplotlib.figure import Figure
from PIL import Image

from simexm.result.result import Result
from simexm.view.clip import clip
from simexm.view.window import Planes, Viewer
from tests.export.test_movie_files import STEP_S, counts, make_movie


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Noise of 21 frames, 20 a second."""
    return make_movie(tmp_path_factory.mktemp("view") / "movie.zarr", counts())


def test_the_space_bar_plays_and_stops(movie: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames follow the clock, however seldom they are drawn, and begin again after the last."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    figure = Figure()
    viewer = Viewer(Planes.of(movie), figure)

    def press(key: str) -> None:
        figure.canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", figure.canvas, key))

    press(" ")
    seen = []
    for passed in (0.01, 0.06, 0.31, 1.02, 1.06):
        now = 100 + passed
        viewer._tick()
        seen.append(viewer.plane)
    assert seen == [int(p / STEP_S) % 21 for p in (0.01, 0.06, 0.31, 1.02, 1.06)]
    press(" ")
    now = 105.0
    viewer._tick()
    assert viewer.plane == seen[-1]
    press("up")
    assert viewer.plane == seen[-1] + 1


def test_a_notebook_plays_a_movie(movie: Result) -> None:
    played = clip(movie)
    assert played is not None
    with Image.open(io.BytesIO(played[1])) as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (21, 1000 * STEP_S, 0)  # type: ignore[attr-defined]
        gif.seek(7)
        green = np.asarray(gif.convert("RGB"))[:: gif.height // 18, :: gif.width // 26, 1]
    np.testing.assert_allclose(green, counts()[7, 0], atol=2)


def test_other_results_are_drawn_as_before(tmp_path: Path) -> None:
    from tests.view.test_window import store

    assert clip(store(tmp_path / "stack.zarr", 16)) is None


def test_the_page_holds_the_animation(movie: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from simexm.view import notebook

    monkeypatch.setattr(notebook, "result_rows", lambda result: [("frames", "21")])
    page = notebook.result_html(movie)
    assert page is not None
    found = re.search(r"data:image/gif;base64,([^\"]+)", page)
    assert found is not None
    assert base64.b64decode(found[1])[:6] in (b"GIF89a", b"GIF87a")
    assert "<script" not in page
