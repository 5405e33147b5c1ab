"""Tables of localisations in several dialects: what is written is read back where it was, frame and half a pixel included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simexm.errors import SourceError
from simexm.sources.localisations import (
    Columns,
    Picture,
    picasso_yaml,
    read_localisations,
    write_csv,
    write_picasso,
)

PICTURE = Picture(pixel_nm=120.0, width=64, height=48, frames=9, sigma_nm=130.0)
WRITTEN = ("thunderstorm", "picasso", "smlm-challenge", "smap")


def table() -> Columns:
    """A few localisations; the first in the middle of the first pixel of the first frame."""
    rng = np.random.default_rng(0)
    n = 40
    places = {f"{axis}_nm": rng.uniform(0, 120 * 40, n) for axis in "zyx"}
    found: Columns = {"time": np.sort(rng.integers(0, 9, n)), **places, "photons": rng.uniform(100, 4000, n)}
    found["time"][0] = 0
    found["y_nm"][0] = found["x_nm"][0] = 60.0
    return found


def written(folder: Path, dialect: str) -> Path:
    """The table as a file."""
    rows = table()
    parts = iter([{k: v[:25] for k, v in rows.items()}, {k: v[25:] for k, v in rows.items()}])
    if dialect == "picasso":
        (folder / "locs.yaml").write_text(picasso_yaml(PICTURE))
        write_picasso(folder / "locs.hdf5", parts, PICTURE)
        return folder / "locs.hdf5"
    write_csv(folder / "locs.csv", parts, PICTURE, dialect)
    return folder / "locs.csv"


@pytest.mark.parametrize("dialect", WRITTEN)
def test_read_back_where_it_was(tmp_path: Path, dialect: str) -> None:
    path, rows = written(tmp_path, dialect), table()
    pixel = 120.0 if dialect == "smap" else None
    found = read_localisations(path, pixel_nm=pixel)
    np.testing.assert_array_equal(found["time"], rows["time"])
    for axis in "zyx":
        np.testing.assert_allclose(found[f"{axis}_nm"], rows[f"{axis}_nm"], atol=0.002)
    np.testing.assert_allclose(found["photons"], rows["photons"], rtol=1e-4)


def test_each_dialect_has_its_own_origin_and_first_frame(tmp_path: Path) -> None:
    first = {}
    for dialect in ("thunderstorm", "smlm-challenge", "smap"):
        lines = written(tmp_path, dialect).read_text().splitlines()
        names = [name.strip('"') for name in lines[0].split(",")]
        row = dict(zip(names, lines[1].split(","), strict=True))
        first[dialect] = (row["frame"], row[next(n for n in names if n.startswith("x"))])
    assert first == {"thunderstorm": ("1", "60"), "smlm-challenge": ("1", "60"), "smap": ("1", "0")}
    import h5py  # type: ignore[import-untyped]

    with h5py.File(written(tmp_path, "picasso")) as file:
        assert file["locs"][0]["frame"] == 0
        assert file["locs"][0]["x"] == 0


def test_an_uncertain_dialect_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("frame,x,y\n1,60,60\n")
    with pytest.raises(SourceError, match="name its"):
        read_localisations(path)
    path.write_text('"id","frame","x [nm]","y [nm]"\n1,0,60,60\n')
    with pytest.raises(SourceError, match="frame 0"):
        read_localisations(path)
    with pytest.raises(SourceError, match="pixel_nm"):
        read_localisations(written(tmp_path, "smap"))
    with pytest.raises(SourceError, match="unknown"):
        read_localisations(path, "storm")
    path.write_text("frame,xnano,ynano\n1,nan,60\n")
    with pytest.raises(SourceError, match="no numbers"):
        read_localisations(path)
