"""Read segmentations in NWB files: a PlaneSegmentation, and series of its regions. An NWB file is HDF5, so h5py is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from simexm.analysis.traces.extraction import Extraction, from_pixels
from simexm.errors import OutputError
from simexm.sources.needs import need

_SPIKES = ("deconv", "spike", "event")


def read(path: Path) -> Extraction:
    """Read the first PlaneSegmentation, and the series of its regions: one of spikes by its name, the first other as traces."""
    h5py = need("h5py", f"{path} is HDF5")
    with h5py.File(path, "r") as file:
        planes, series = _of_type(file, "PlaneSegmentation"), _of_type(file, "RoiResponseSeries")
        if not planes:
            raise OutputError(f"{path} holds no PlaneSegmentation, so no footprints; write one, or name another file")
        footprints, shape = _footprints(planes[0], _size(file), str(path))
        found: dict[str, NDArray[np.float64]] = {}
        for one in series:
            name = one.name.lower()
            kind = "spikes" if any(word in name for word in _SPIKES) else "traces"
            if kind not in found:
                found[kind] = _rows(one, footprints.shape[0])
    return Extraction(f"{path} (NWB)", shape, footprints, found.get("traces"), found.get("spikes"))


def _of_type(file: Any, kind: str) -> list[Any]:
    found: list[Any] = []

    def visit(_: str, node: Any) -> None:
        if node.attrs.get("neurodata_type") == kind:
            found.append(node)

    file.visititems(visit)
    return found


def _size(file: Any) -> tuple[int, int] | None:
    """Rows and columns of a stored movie, (frame, x, y) by the standard; only their numbers matter."""
    for kind in ("OnePhotonSeries", "TwoPhotonSeries"):
        for series in _of_type(file, kind):
            if "dimension" in series:
                width, height = (int(n) for n in series["dimension"][:2])
                return height, width
    return None


def _footprints(plane: Any, size: tuple[int, int] | None, name: str) -> tuple[Any, tuple[int, int]]:
    if "pixel_mask" in plane:
        pixels, ends = plane["pixel_mask"][...], plane["pixel_mask_index"][...].astype(np.int64)
        unit = np.repeat(np.arange(ends.size), np.diff(ends, prepend=0))
        shape = size or (int(pixels["y"].max()) + 1, int(pixels["x"].max()) + 1)
        return from_pixels(unit, pixels["y"], pixels["x"], pixels["weight"], ends.size, shape), shape
    if "image_mask" in plane:  # (unit, x, y) by the standard
        images = np.nan_to_num(np.swapaxes(plane["image_mask"][...], 1, 2).astype(np.float64))
        return sparse.csr_array(images.reshape(len(images), -1)), (images.shape[1], images.shape[2])
    raise OutputError(f"{name}: its PlaneSegmentation has neither pixel_mask nor image_mask; write one of them")


def _rows(series: Any, units: int) -> NDArray[np.float64]:
    """Values (unit, frame); those of regions that the series leaves out are not known."""
    values = np.atleast_2d(np.asarray(series["data"][...], np.float64))
    values = values.T if series["data"].ndim == 2 else values  # stored as (frame, region)
    rois = series["rois"][...].astype(np.int64) if "rois" in series else np.arange(len(values))
    out = np.full((units, values.shape[1]), np.nan)
    out[rois] = values
    return out
