"""Read what programs for calcium imaging write: Suite2p, CaImAn, NWB, and plain NumPy files. See `minian_folder` for minian."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from simexm.analysis.traces import minian_folder, nwb
from simexm.analysis.traces.extraction import Extraction, from_images, from_pixels
from simexm.analysis.traces.pickled import read_objects
from simexm.errors import OutputError
from simexm.sources.needs import need

KNOWN = (
    "a folder of minian (A.zarr, C.zarr, ...) or its NAME.nc; plane0 of Suite2p (stat.npy, F.npy, spks.npy); NAME.hdf5 of "
    "CaImAn; NAME.nwb; NAME.npz with footprints (unit, y, x), traces, spikes, shifts; NAME.npy of footprints"
)


def read(path: Path) -> Extraction:
    """Read what a program found; raises OutputError if the format is unknown or damaged."""
    if not path.exists():
        raise OutputError(f"{path} does not exist; name what a program found in the movie: {KNOWN}")
    reader = _reader(path)
    try:
        return reader(path)
    except OutputError:
        raise
    except (KeyError, ValueError, OSError, IndexError, TypeError) as error:
        raise OutputError(f"{path} cannot be read: {type(error).__name__}: {error}. Known are {KNOWN}") from error


def _reader(path: Path) -> Callable[[Path], Extraction]:
    suffix = path.suffix.lower()
    if path.is_dir():
        if (path / "stat.npy").exists():
            return suite2p
        if minian_folder.is_one(path):
            return minian_folder.read
    found = {".nc": minian_folder.read_netcdf, ".nwb": nwb.read, ".npz": npz, ".npy": npy}
    found |= dict.fromkeys((".hdf5", ".h5"), caiman)
    if path.is_dir() or suffix not in found:
        raise OutputError(f"{path} is of no known format; name {KNOWN}")
    return found[suffix]


def npy(path: Path) -> Extraction:
    """Read footprints alone, (unit, y, x)."""
    return Extraction(str(path), *_swapped(from_images(np.load(path, allow_pickle=False), str(path))))


def npz(path: Path) -> Extraction:
    """Read arrays by name: footprints or A, traces or C, spikes or S, shifts, and fields as field_NAME."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)

    def first(*names: str) -> Any:
        return next((arrays[name] for name in names if name in arrays), None)

    images = first("footprints", "A")
    if images is None:
        raise OutputError(f"{path} holds {', '.join(arrays) or 'nothing'}; add footprints, (unit, y, x)")
    fields = {name.removeprefix("field_"): array for name, array in arrays.items() if name.startswith("field_")}
    traces, spikes, shifts = first("traces", "C"), first("spikes", "S"), first("shifts")
    return Extraction(str(path), *_swapped(from_images(images, str(path))), traces, spikes, shifts, fields)


def _swapped(made: tuple[Any, tuple[int, int]]) -> tuple[tuple[int, int], Any]:
    return made[1], made[0]


def suite2p(folder: Path) -> Extraction:
    """Read a plane's folder: F less 0.7 Fneu, as Suite2p itself uses them, and spks; with iscell.npy cells alone."""
    stat, ops = read_objects(folder / "stat.npy"), read_objects(folder / "ops.npy").item()
    shape = (int(ops["Ly"]), int(ops["Lx"]))
    unit = np.repeat(np.arange(len(stat)), [len(s["ypix"]) for s in stat])
    y, x, weight = (np.concatenate([np.asarray(s[name]).ravel() for s in stat]) for name in ("ypix", "xpix", "lam"))
    footprints = from_pixels(unit, y, x, weight, len(stat), shape)
    is_cell = np.ones(len(stat), np.bool_)
    if (folder / "iscell.npy").exists():
        is_cell = np.load(folder / "iscell.npy", allow_pickle=False)[:, 0] > 0
    arrays = {name: folder / f"{name}.npy" for name in ("F", "Fneu", "spks")}
    read = {name: np.load(file, allow_pickle=False)[is_cell] for name, file in arrays.items() if file.exists()}
    traces = read.get("F")
    if traces is not None and "Fneu" in read:
        traces = traces - float(ops.get("neucoeff", 0.7)) * read["Fneu"]
    shifts = np.stack([ops["yoff"], ops["xoff"]], axis=1).astype(np.float64) if "yoff" in ops else None
    return Extraction(f"{folder} (Suite2p)", shape, footprints[is_cell], traces, read.get("spks"), shifts)


def caiman(path: Path) -> Extraction:
    """Read the estimates of CNMF, those accepted if some were; its pixels run along columns."""
    h5py = need("h5py", f"{path} is HDF5")
    with h5py.File(path, "r") as file:
        if "estimates" not in file:
            raise OutputError(f"{path} holds no estimates of CaImAn, but {', '.join(file) or 'nothing'}; name {KNOWN}")
        estimates = file["estimates"]
        dims = estimates["dims"] if "dims" in estimates else file["dims"]
        shape = int(dims[0]), int(dims[1])
        rows_n, columns_n = (int(n) for n in estimates["A"]["shape"][...])
        parts = [estimates["A"][name][...] for name in ("data", "indices", "indptr")]
        columns = sparse.csc_array(tuple(parts), shape=(rows_n, columns_n))

        def rows(name: str) -> Any:
            stored = estimates.get(name)
            return stored[...] if getattr(stored, "ndim", 0) == 2 else None

        traces, spikes = rows("C"), rows("S")
        chosen = estimates.get("idx_components")
        accepted = chosen[...].astype(np.int64) if getattr(chosen, "ndim", 0) == 1 else np.arange(columns.shape[1])
    pixel = sparse.coo_array(columns)
    footprints = from_pixels(
        pixel.col, pixel.row % shape[0], pixel.row // shape[0], pixel.data, columns.shape[1], shape
    )[accepted]
    traces, spikes = (None if a is None else a[accepted] for a in (traces, spikes))
    return Extraction(f"{path} (CaImAn)", shape, footprints, traces, spikes)
