"""Tables of localisations, in the dialects of several programs.

In memory they are columns by name: `time`, the frame, from 0 on; `z_nm`, `y_nm`, `x_nm` from the image's corner, pixel i having
its centre at (i + 1/2) pixel sizes; and, as far as a table has them, `photons`, `background` (photons per pixel), `sigma_nm`,
`precision_nm`, `emitter`.

============== ======== ============================ =============================
dialect        frames   x, y                         marks
============== ======== ============================ =============================
simexm         from 0   nm from the corner           Parquet, `time`, `x_nm`
thunderstorm   from 1   nm from the corner           CSV, `x [nm]`
picasso        from 0   pixels, first centre at 0    HDF5 `locs`, and NAME.yaml
smlm-challenge from 1   nm from the corner           CSV, `xnano`
smap           from 1   nm, first pixel's centre 0   CSV, `xnm`
============== ======== ============================ =============================
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError

Columns = dict[str, NDArray[Any]]
Dialects = Literal["simexm", "thunderstorm", "picasso", "smlm-challenge", "smap"]
DIALECTS = get_args(Dialects)
_AT_ONCE = 1 << 16
_OWN = frozenset({"y_nm", "x_nm"})
"""Columns that only tables of simexm have."""


class Dialect(NamedTuple):
    """A dialect of CSV."""

    first_frame: int
    centred: bool  # whether 0 is the first pixel's centre, not its corner
    names: Mapping[str, str]  # own columns by ours


CSV: Mapping[str, Dialect] = {
    "thunderstorm": Dialect(
        1,
        False,
        {
            "id": "id", "time": "frame", "x_nm": "x [nm]", "y_nm": "y [nm]", "z_nm": "z [nm]", "sigma_nm": "sigma [nm]",
            "photons": "intensity [photon]", "background": "offset [photon]", "precision_nm": "uncertainty_xy [nm]",
        },
    ),
    "smlm-challenge": Dialect(
        1,
        False,
        {"emitter": "Ground-truth", "time": "frame", "x_nm": "xnano", "y_nm": "ynano", "z_nm": "znano", "photons": "intensity"},
    ),
    "smap": Dialect(
        1,
        True,
        {
            "time": "frame", "x_nm": "xnm", "y_nm": "ynm", "z_nm": "znm", "photons": "phot", "background": "bg",
            "precision_nm": "locprecnm",
        },
    ),
}  # fmt: skip


def read_localisations(path: str | Path, dialect: str | None = None, *, pixel_nm: float | None = None) -> Columns:
    """Read a table of localisations.

    Parameters
    ----------
    path
        A file of CSV, HDF5 or Parquet, or a folder of Parquet files.
    dialect
        One of `DIALECTS`; by default the only one that the file can be.
    pixel_nm
        Pixel size, for dialects that count from a pixel's centre and do not state it.

    Raises
    ------
    SourceError
        The file cannot be read, or its dialect is not certain.
    """
    where = Path(path)
    if not where.exists():
        raise SourceError(f"{where} does not exist; give the path of a table of localisations")
    if dialect is not None and dialect not in DIALECTS:
        raise SourceError(f"dialect {dialect!r} is unknown; choose one of {', '.join(DIALECTS)}")
    found = _dialect(where) if dialect is None else dialect
    if found == "simexm":
        table = _parquet(where)
    elif found == "picasso":
        table = _picasso(where)
    else:
        table = _csv(where, found, pixel_nm)
    return _checked(where, table)


def is_own(path: Path) -> bool:
    """Whether a table has simexm's own columns: a result, Parquet, or CSV whose header names them."""
    return path.is_dir() or path.suffix in (".zarr", ".parquet") or (path.suffix == ".csv" and {*_header(path)} >= _OWN)


def _dialect(path: Path) -> str:
    """Return the only dialect that a file can be."""
    if is_own(path) and path.suffix != ".csv":
        return "simexm"
    if path.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        return "picasso"
    names = [name.strip() for name in _header(path)]
    fits = [key for key, one in CSV.items() if {one.names["time"], one.names["x_nm"], one.names["y_nm"]} <= set(names)]
    if len(fits) == 1:
        return fits[0]
    what = f"fits {' and '.join(fits)}" if fits else "fits none of them"
    raise SourceError(
        f"{path} has the columns {', '.join(names[:12])}, which {what}: half a pixel and one frame would be guessed; name its "
        f"dialect, one of {', '.join(DIALECTS)}"
    )


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as CSV ({error}); give a table of localisations") from error


def _parquet(path: Path) -> Columns:
    import pyarrow as pa  # type: ignore[import-untyped]  # late: it takes a while to load
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as Parquet ({error}); give a table of localisations") from error
    return {name: table[name].to_numpy() for name in table.column_names}


def _csv(path: Path, dialect: str, pixel_nm: float | None) -> Columns:
    form = CSV[dialect]
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        names = [name.strip() for name in next(rows, [])]
        known = {ours: names.index(own) for ours, own in form.names.items() if own in names}
        lacking = [form.names[ours] for ours in ("time", "x_nm", "y_nm") if ours not in known]
        if lacking:
            raise SourceError(
                f"{path} has no column {' and no '.join(lacking)}, so it is no table of {dialect}; name another"
            )
        try:
            values = np.array([[float(row[n]) for n in known.values()] for row in rows if row], np.float64)
        except (ValueError, IndexError) as error:
            raise SourceError(
                f"{path} has a row that is no numbers ({error}); repair it, or write the table again"
            ) from error
    values = values.reshape(-1, len(known))
    table: Columns = {ours: values[:, n] for n, ours in enumerate(known)}
    table["time"] = np.rint(table["time"]).astype(np.int64) - form.first_frame
    if table["time"].size and table["time"].min() < 0:
        raise SourceError(
            f"{path} looks like {dialect}, whose frames count from 1, but it has a frame 0: another program wrote it, and its "
            "places may be off by half a pixel, too; export it from that program in the program's own format"
        )
    if form.centred:
        if pixel_nm is None:
            raise SourceError(
                f"{path}: places of {dialect} count from the centre of the first pixel; give pixel_nm, its size"
            )
        for axis in "yx":
            table[f"{axis}_nm"] = table[f"{axis}_nm"] + pixel_nm / 2
    table.pop("id", None)
    return table


def _picasso(path: Path) -> Columns:
    h5py = _h5py()
    import yaml

    beside = path.with_suffix(".yaml")
    try:
        documents = [d for d in yaml.safe_load_all(beside.read_text(encoding="utf-8")) if isinstance(d, dict)]
        with h5py.File(path, "r") as file:
            locs = file["locs"][()]
    except (OSError, KeyError, yaml.YAMLError) as error:
        raise SourceError(
            f"{path} is no table of Picasso, which needs a data set locs, and {beside.name} beside it ({error})"
        ) from error
    pixel = next((float(d["Pixelsize"]) for d in documents if "Pixelsize" in d), None)
    if pixel is None:
        raise SourceError(
            f"{beside} states no Pixelsize, so places in nm are unknown; add a line Pixelsize: 100, in nm"
        )
    table: Columns = {"time": locs["frame"].astype(np.int64)}
    for axis in "yx":
        table[f"{axis}_nm"] = (locs[axis].astype(np.float64) + 0.5) * pixel
    if "z" in locs.dtype.names:
        table["z_nm"] = locs["z"].astype(np.float64)
    for ours, own, unit in (
        ("photons", "photons", 1.0),
        ("background", "bg", 1.0),
        ("sigma_nm", "sx", pixel),
        ("precision_nm", "lpx", pixel),
    ):
        if own in locs.dtype.names:
            table[ours] = locs[own].astype(np.float64) * unit
    return table


def _h5py() -> Any:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise SourceError("HDF5 needs h5py, which is not installed; type pip install 'simexm[io]'") from error
    return h5py


def _checked(path: Path, table: Columns) -> Columns:
    lacking = [name for name in ("time", "y_nm", "x_nm") if name not in table]
    if lacking:
        raise SourceError(f"{path} has no column {' and no '.join(lacking)}; it is no table of localisations")
    for name in ("y_nm", "x_nm"):
        bad = int(np.count_nonzero(~np.isfinite(table[name])))
        if bad:
            raise SourceError(f"{path} has {bad} places that are no numbers in {name}; remove these rows")
    return table


# ---------------------------------------------------------------- writing


class Picture(NamedTuple):
    """The movie that localisations are of."""

    pixel_nm: float
    width: int
    height: int
    frames: int
    sigma_nm: float


def _written(
    parts: Iterator[Columns], picture: Picture, form: Dialect
) -> Iterator[tuple[list[str], list[NDArray[Any]]]]:
    shift = picture.pixel_nm / 2 if form.centred else 0.0
    done = 0
    for part in parts:
        table = dict(part)
        n = table["time"].size
        table["time"] = table["time"] + form.first_frame
        table["id"] = np.arange(done + 1, done + n + 1)
        done += n
        for axis in "yx":
            table[f"{axis}_nm"] = table[f"{axis}_nm"] - shift
        known = {own: table[ours] for ours, own in form.names.items() if ours in table}
        yield list(known), list(known.values())


def write_csv(path: Path, parts: Iterator[Columns], picture: Picture, dialect: str) -> None:
    """Write a table in a dialect of CSV, in pieces."""
    with path.open("w", encoding="utf-8", newline="") as file:
        header = False
        for names, columns in _written(parts, picture, CSV[dialect]):
            if not header:
                file.write(",".join(f'"{n}"' if dialect == "thunderstorm" else n for n in names) + "\n")
                header = True
            lines = csv.writer(file, lineterminator="\n")
            for first in range(0, columns[0].size, _AT_ONCE):
                some = [_texts(column[first : first + _AT_ONCE]) for column in columns]
                lines.writerows(zip(*some, strict=True))


def _texts(column: NDArray[Any]) -> list[str]:
    form: Callable[[Any], str] = str if column.dtype.kind in "iu" else (lambda v: f"{v:.5f}".rstrip("0").rstrip("."))
    return [form(v) for v in column.tolist()]


def write_picasso(path: Path, parts: Iterator[Columns], picture: Picture) -> None:
    """Write `locs` of Picasso's HDF5 in pieces; `picasso_yaml` belongs beside it."""
    h5py = _h5py()
    names = ("frame", "x", "y", "photons", "sx", "sy", "bg", "lpx", "lpy", "z")
    kinds = np.dtype([(name, "u4" if name == "frame" else "f4") for name in names])
    pixel = picture.pixel_nm
    with h5py.File(path, "w") as file:
        locs = file.create_dataset("locs", (0,), kinds, maxshape=(None,), chunks=(_AT_ONCE,))
        for part in parts:
            n = part["time"].size
            some = np.zeros(n, kinds)
            some["frame"], some["photons"] = part["time"], part["photons"]
            for axis in "yx":
                some[axis] = part[f"{axis}_nm"] / pixel - 0.5
            some["z"] = part.get("z_nm", 0.0)
            sigma = part.get("sigma_nm", np.full(n, picture.sigma_nm)) / pixel
            some["sx"] = some["sy"] = sigma
            some["bg"] = part.get("background", np.nan)
            some["lpx"] = some["lpy"] = (
                part["precision_nm"] / pixel
                if "precision_nm" in part
                else np.sqrt((sigma**2 + 1 / 12) / np.maximum(part["photons"], 1e-6))
            )
            start = locs.shape[0]
            locs.resize((start + n,))
            locs[start:] = some


def picasso_yaml(picture: Picture) -> str:
    """Return the text of the file beside Picasso's HDF5."""
    import yaml

    about = {
        "Byte Order": "<", "Data Type": "uint16", "File": "simexm", "Frames": picture.frames, "Height": picture.height,
        "Width": picture.width, "Pixelsize": picture.pixel_nm, "Generated by": "simexm",
    }  # fmt: skip
    return str(yaml.safe_dump(about, sort_keys=False))
