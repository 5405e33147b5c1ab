"""Fixtures that several folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def _data_folder() -> Path | None:
    given = os.environ.get("SIMEXM_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def cortex_tif() -> Path:
    """The real cortex segmentation, 512^3 voxels of 40 x 32 x 32 nm, uint32."""
    folder = _data_folder()
    if folder is None or not (folder / "pinky40_512.tif").is_file():
        pytest.skip("the cortex volume is not here: point SIMEXM_TEST_DATA at the folder with pinky40_512.tif")
    return folder / "pinky40_512.tif"
