"""`simexm view` with skeletons: a real browser shows them in the middle of their cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from simexm.analysis.objects.objects import Objects
from simexm.analysis.skeletons.skeletons import Skeletons
from simexm.cli import app
from tests.view.browser import pixels
from tests.view.test_view import browser as browser
from tests.view.test_view import viewing

__all__ = ["browser"]

pytestmark = pytest.mark.slow


def test_skeletons_lie_in_their_cells(browser: Any, tmp_path: Path) -> None:
    """A straight cell is one strip of one colour; its skeleton is a line of another along the strip's middle."""
    z, y, _ = np.indices((32, 64, 64))
    np.save(tmp_path / "cell.npy", ((z - 16) ** 2 + (y - 32) ** 2 <= 64).astype(np.uint8))
    grid: dict[str, Any] = {"voxel_size_nm": (32, 32, 32)}
    cells = Objects(**grid).run(tmp_path / "cell.npy", output=tmp_path / "cells.zarr", quiet=True)
    trees = Skeletons(**grid).run(tmp_path / "cell.npy", output=tmp_path / "trees.zarr", quiet=True)
    alone = CliRunner().invoke(app, ["view", str(trees.path), "--no-browser"])
    assert alone.exit_code == 2
    assert "shown in a volume" in alone.stderr
    with viewing(browser, cells.path, trees.path) as shown:
        assert [layer["name"] for layer in shown.state["layers"]] == ["labels/components", "trees"]
        shown.page.evaluate(
            """() => {
                viewer.layout.restoreState("xy");
                viewer.showAxisLines.value = viewer.showDefaultAnnotations.value = viewer.showScaleBar.value = false;
            }"""
        )
        (box,) = shown.panels
        column = int(box[0] + box[2] / 2)

        def strip() -> tuple[Any, Any]:
            """Rows of the cell, and those of its skeleton, in the middle of the page."""
            colours = pixels(shown.page)[int(box[1]) : int(box[1] + box[3]), column, :3].astype(int)
            inside = np.flatnonzero(colours.sum(axis=1) > 60)
            if not inside.size:
                return inside, inside
            edge = colours[inside[len(inside) // 5]]
            return inside, inside[np.abs(colours[inside] - edge).sum(axis=1) > 60]

        shown.until(lambda: 0 < strip()[1].size < strip()[0].size / 3, "no line lies in the cell")
        cell, line = strip()
        assert abs(cell.mean() - line.mean()) < 0.1 * cell.size
        assert any(url.endswith("/1") for url in shown.requests)
