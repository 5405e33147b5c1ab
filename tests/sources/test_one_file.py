"""NumPy, NRRD, NIfTI and MRC: ids, size, unit, position and axes, a box at a time."""

from __future__ import annotations

import gzip
import re
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mrcfile  # type: ignore[import-untyped]
import nibabel
import nrrd  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import SimexmError, SimexmWarning, SourceError
from simexm.geometry.grid import Box, Spacing, exact3
from simexm.sources.opening import open_stack
from tests.sources.volumes import SHAPE, ids, whole

A = ids("uint16")
NM = exact3((40, 8, 4))
ZERO = exact3((0, 0, 0))
CENTRE = exact3((300 - 20, 200 - 4, 100 - 2))
STEPS = np.diag([0.004, 0.008, 0.04])
AT = (0.1, 0.2, 0.3)


def nifti(
    path: Path,
    a: NDArray[Any] = A.T,
    steps: NDArray[Any] = STEPS,
    at: Sequence[float] = AT,
    unit: str = "micron",
    **how: Any,
) -> None:
    """Write a NIfTI; `a` and `steps` are x, y, z."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, at
    image = how.get("kind", nibabel.Nifti1Image)(a, affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def nifti_of_pixdim(path: Path) -> None:
    """Neither transformation is valid."""
    image = nibabel.Nifti1Image(A.T, None)  # type: ignore[no-untyped-call]
    image.header.set_zooms((0.004, 0.008, 0.04))  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("micron")  # type: ignore[no-untyped-call]
    nibabel.save(image, path)


def space(**header: Any) -> Callable[[Path], None]:
    """Write a NRRD."""
    usual = {
        "space": "left-posterior-superior", "space directions": STEPS, "space origin": AT, "space units": ["um"] * 3, "encoding": "raw"
    }  # fmt: skip
    return lambda path: nrrd.write(str(path), header.pop("a", A.T), usual | header)


def mrc(path: Path, a: NDArray[Any] = A, **fields: Any) -> None:
    """Write an MRC."""
    with mrcfile.new(path, compression="gzip" if path.suffix == ".gz" else None) as file:
        file.set_data(a)
        file.voxel_size = fields.pop("size", (40, 80, 400))
        for name, value in fields.items():
            if name == "origin":
                file.header.origin = value
            else:
                setattr(file.header, name, value)


def imod(path: Path) -> None:
    """Bytes without a sign, and the stamp that says so."""
    mrc(path, (A // 256).astype(np.uint8).view(np.int8), origin=(-1000, -2000, -3000))
    data = bytearray(path.read_bytes())
    data[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(data)


GOOD: dict[str, tuple[str, Callable[[Path], None], Spacing | None, Spacing]] = {
    "npy": ("a.npy", lambda p: np.save(p, A), None, ZERO),
    "npy in Fortran's order": ("a.npy", lambda p: np.save(p, np.asfortranarray(A)), None, ZERO),
    "npy of big endian": ("a.npy", lambda p: np.save(p, A.astype(">u2")), None, ZERO),
    "npy with axes of length 1": ("a.npy", lambda p: np.save(p, A[None, ..., None]), None, ZERO),
    "nii": ("a.nii", nifti, NM, CENTRE),
    "nii.gz": ("a.nii.gz", nifti, NM, CENTRE),
    "NIfTI-2": ("a.nii", lambda p: nifti(p, kind=nibabel.Nifti2Image), NM, CENTRE),
    "NIfTI with time of 1": ("a.nii", lambda p: nifti(p, A.T[..., None]), NM, CENTRE),
    "NIfTI whose first axis is z": ("a.nii", lambda p: nifti(p, A, STEPS[:, ::-1]), NM, CENTRE),
    "NIfTI of ITK": ("a.nii", lambda p: nifti(p, steps=STEPS * [[-1], [-1], [1]], at=(-0.1, -0.2, 0.3)), NM, CENTRE),
    "NIfTI of sizes alone": ("a.nii", nifti_of_pixdim, NM, ZERO),
    "NIfTI without a unit": ("a.nii", lambda p: nifti(p, unit="unknown"), None, ZERO),
    "NIfTI of 1 mm": ("a.nii", lambda p: nifti(p, steps=np.eye(3), unit="mm"), None, ZERO),
    "nrrd": ("a.nrrd", space(), NM, CENTRE),
    "nrrd gzip": ("a.nrrd", space(encoding="gzip"), NM, CENTRE),
    "nrrd bzip2": ("a.nrrd", space(encoding="bzip2"), NM, CENTRE),
    "nrrd of big endian": ("a.nrrd", space(a=A.T.astype(">u2"), endian="big"), NM, CENTRE),
    "nrrd whose first axis is z": ("a.nrrd", space(a=A, **{"space directions": STEPS[::-1]}), NM, CENTRE),
    "nrrd without a unit": ("a.nrrd", space(**{"space units": []}), None, ZERO),
    "nrrd of spacings": ("a.nrrd", lambda p: nrrd.write(str(p), A.T, {"spacings": [4, 8, 40], "units": ["nm"] * 3}), NM, ZERO),
    "nrrd with labels of axes": (
        "a.nrrd",
        lambda p: nrrd.write(str(p), A, {"spacings": [40, 8, 4], "units": ["nm"] * 3, "labels": ["z", "y", "x"]}), NM, ZERO,
    ),
    "nrrd that tells nothing": ("a.nrrd", lambda p: nrrd.write(str(p), A.T), None, ZERO),
    "mrc": ("a.mrc", mrc, NM, ZERO),
    "mrc.gz": ("a.mrc.gz", mrc, NM, ZERO),
    "mrc with an origin": ("a.mrc", lambda p: mrc(p, origin=(1000, 2000, 3000)), NM, exact3((300, 200, 100))),
    "mrc with a start": ("a.mrc", lambda p: mrc(p, nzstart=7), NM, exact3((280, 0, 0))),
    "mrc whose columns are z": (
        "a.mrc", lambda p: mrc(p, np.ascontiguousarray(A.T), mapc=3, mapr=2, maps=1), NM, ZERO
    ),
    "mrc of 1 angstrom": ("a.mrc", lambda p: mrc(p, size=1), None, ZERO),
    "mrc of no size": ("a.mrc", lambda p: mrc(p, size=0), None, ZERO),
}  # fmt: skip


@pytest.mark.parametrize(("name", "write", "size", "begin"), GOOD.values(), ids=GOOD)
def test_all_that_a_file_tells_is_read(
    tmp_path: Path, name: str, write: Callable[[Path], None], size: Spacing | None, begin: Spacing
) -> None:
    write(tmp_path / name)
    stack = open_stack(str(tmp_path / name))
    assert (stack.shape, stack.voxel_size_nm, stack.origin_nm) == (SHAPE, size, begin)
    assert stack.dtype == np.uint16
    box = Box((1, 2, 5), (4, 9, 21))
    np.testing.assert_array_equal(stack.read(box), A[box.slices])
    with ThreadPoolExecutor(4) as pool:  # as ingest does
        for found in pool.map(lambda _: whole(stack), range(8)):
            np.testing.assert_array_equal(found, A)


def test_bytes_of_imod_have_no_sign_and_its_origin_the_other_one(tmp_path: Path) -> None:
    imod(tmp_path / "a.mrc")
    stack = open_stack(str(tmp_path / "a.mrc"))
    np.testing.assert_array_equal(whole(stack), A // 256)
    assert stack.origin_nm == exact3((300, 200, 100))


@pytest.mark.parametrize("steps", [np.diag([-0.004, 0.008, 0.04]), STEPS @ [[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]]])
def test_axes_that_run_elsewhere_keep_their_order_and_lose_the_position_with_a_word(
    tmp_path: Path, steps: NDArray[Any]
) -> None:
    nifti(tmp_path / "a.nii", steps=steps)
    with pytest.warns(SimexmWarning, match=r"a\.nii: its axes .* the position is not read"):
        stack = open_stack(str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(whole(stack), A)
    assert stack.origin_nm == ZERO


def some_gzip(path: Path) -> None:
    """Text, compressed."""
    path.write_bytes(gzip.compress(b"text" * 99))


BAD: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "npy of objects": ("a.npy", lambda p: np.save(p, np.array([[["a"]]], object), allow_pickle=True), "Python objects"),
    "npy of records": ("a.npy", lambda p: np.save(p, np.zeros(SHAPE, "u1,u1")), "records"),
    "npy of a plane": ("a.npy", lambda p: np.save(p, A[0]), "three axes"),
    "npy of four axes": ("a.npy", lambda p: np.save(p, np.stack([A, A])), "three axes"),
    "npy that is empty": ("a.npy", lambda p: np.save(p, A[:0]), "is empty"),
    "npz": ("a.npz", lambda p: np.savez(p, A), "numpy.save"),
    "NIfTI in colour": ("a.nii", lambda p: nifti(p, np.zeros(SHAPE[::-1], [(c, "u1") for c in "RGB"])), "colours"),
    "NIfTI of two volumes": ("a.nii", lambda p: nifti(p, np.stack([A.T, A.T], -1)), "one volume"),
    "nrrd of text": ("a.nrrd", space(encoding="ascii"), "raw or gzip"),
    "nrrd of vectors": (
        "a.nrrd",
        space(
            a=np.stack([A.T, A.T]),
            **{"space directions": np.vstack([[np.nan] * 3, STEPS]), "kinds": ["vector"] + ["domain"] * 3},
        ),
        "one number",
    ),
    "nrrd in two files": ("a.nhdr", lambda p: nrrd.write(str(p), A.T), "one file"),
    "mrc of complex numbers": ("a.mrc", lambda p: mrc(p, A.astype(np.complex64)), "complex64"),
    "any gzip": ("a.gz", some_gzip, "neither TIFF"),
}


@pytest.mark.parametrize(("name", "write", "told"), BAD.values(), ids=BAD)
def test_what_is_no_volume_of_ids_is_refused_on_the_command_line(
    tmp_path: Path, name: str, write: Callable[[Path], None], told: str
) -> None:
    write(tmp_path / name)
    done = CliRunner().invoke(
        app, ["ingest", f"{tmp_path}/{name}", "-o", f"{tmp_path}/a.zarr", "--voxel-size", "40", "8", "4", "-q"]
    )
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.stderr.split())


FILES: dict[str, Callable[[Path], None]] = {
    "a.npy": lambda p: np.save(p, A),
    "a.nii": nifti,
    "a.nii.gz": nifti,
    "a.nrrd": space(),
    "a.mrc": mrc,
    "a.mrc.gz": mrc,
}


@pytest.mark.parametrize(("name", "module"), [("a.nii", "nibabel"), ("a.nrrd", "nrrd"), ("a.mrc", "mrcfile")])
def test_a_missing_library_says_what_to_install(
    tmp_path: Path, name: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FILES[name](tmp_path / name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=r'pip install "simexm\[io\]"'):
        open_stack(str(tmp_path / name))


def test_scaled_values_are_no_ids(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(A.T, np.eye(4))  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(2, 0)  # type: ignore[no-untyped-call]
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(SourceError, match="scaled"):
        open_stack(str(tmp_path / "a.nii"))


@pytest.mark.parametrize("share", [0.1, 0.7, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off(tmp_path: Path, name: str, share: float) -> None:
    FILES[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=rf"{re.escape(name)} (is damaged|cannot be read)"):
        open_stack(str(tmp_path / name))


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
@pytest.mark.parametrize("name", FILES)
def test_whatever_byte_is_wrong_the_error_is_ours(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """And what the libraries print about it does not reach the terminal."""
    FILES[name](tmp_path / name)
    good = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        data = bytearray(good)
        for at in rng.integers(0, min(len(data), 360), 2):
            data[at] = rng.integers(256)
        (tmp_path / name).write_bytes(data)
        try:
            stack = open_stack(str(tmp_path / name))
            if np.prod([float(s) for s in stack.shape]) < 1e7:
                whole(stack)
        except SimexmError:
            pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_is_its_content_tells_and_not_its_name(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    (tmp_path / name).rename(tmp_path / "labels")
    np.testing.assert_array_equal(whole(open_stack(f"{tmp_path}/labels")), A)


@pytest.mark.parametrize("name", ["a.npy", "a.nii.gz"])
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, name: str) -> None:
    """16 MB of ids, of which a plane is read."""
    big = np.zeros((64, 256, 512), np.uint16)
    big[33] = 7
    np.save(tmp_path / name, big) if name == "a.npy" else nifti(tmp_path / name, big.T)
    del big
    tracemalloc.start()
    stack = open_stack(f"{tmp_path}/{name}")
    assert stack.read(Box((33, 0, 0), (34, 256, 512))).min() == 7
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.stop()


def test_no_room_to_unpack_is_told(tmp_path: Path) -> None:
    """A header that tells more than any disk has."""
    nifti(tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[42:48] = np.array([32000] * 3, "<i2").tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(SourceError, match=r"must be unpacked.*TMPDIR|is damaged"):
        open_stack(f"{tmp_path}/a.nii.gz")


def test_ingest_keeps_what_a_nifti_tells(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz")
    done = CliRunner().invoke(app, ["ingest", f"{tmp_path}/a.nii.gz", "-o", f"{tmp_path}/a.zarr"])
    assert done.exit_code == 0, done.output
    assert "40 x 8 x 4 nm" in done.output
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr/0", mode="r")[...], A)
