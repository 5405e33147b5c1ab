"""Transforms in the files of other programs: an asymmetric field on anisotropic voxels, written by one and read by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pyarrow.csv  # type: ignore[import-untyped]
import pytest
from typer.testing import CliRunner

from simexm.analysis.registration.foreign import itk_files, ome_zarr
from simexm.analysis.registration.transform import Frame, StoredTransform, Transform
from simexm.cli import app
from simexm.errors import OutputError, SpecError
from simexm.export.export import export
from simexm.result.result import Result
from simexm.store.atomic_group import atomic_group
from tests.analysis.registration.known import (
    AFFINE,
    FRAME,
    SHIFTED,
    align_known,
    composite,
    displaced,
    places,
    truth,
    vectors,
)

itk = pytest.importorskip("SimpleITK")
EXACT_UM = 1e-4


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return align_known(itk, tmp_path_factory.mktemp("known"))


def moved(path: Path, points: Any) -> Any:
    return StoredTransform(str(path)).near(points)(points)


@pytest.mark.parametrize("name", ["field.nrrd", "field.mha", "field.nii.gz"])
def test_fields_that_itk_writes_are_read(tmp_path: Path, name: str) -> None:
    itk.WriteImage(vectors(itk, SHIFTED, displaced(SHIFTED.centres())), str(tmp_path / name))
    found = StoredTransform(str(tmp_path / name))
    points = places(SHIFTED)
    np.testing.assert_allclose(found.near(points)(points), points + displaced(points), rtol=0, atol=EXACT_UM)
    assert found.frame is not None
    np.testing.assert_allclose(found.frame.corner_um, SHIFTED.corner_um, atol=1e-6)


def test_transforms_that_itk_writes_are_read(tmp_path: Path) -> None:
    """A map about a centre, several in a row, and one after a displacement: at the places where ITK itself puts points."""
    affine = itk.AffineTransform(3)
    affine.SetMatrix([1, 0.1, 0, 0, 1, -0.2, 0.05, 0, 1])
    affine.SetCenter([5, 6, 7])
    affine.SetTranslation([1, -2, 3])
    turn = itk.Euler3DTransform([1.0, 2.0, 3.0], 0.1, -0.2, 0.3)
    points = places(SHIFTED)
    given = {"one.tfm": affine, "row.txt": itk.CompositeTransform([turn, affine]), "bent.h5": composite(itk, SHIFTED)}
    for name, transform in given.items():
        part = tmp_path / (name if name != "row.txt" else "row.tfm")
        itk.WriteTransform(transform, str(part))
        part.rename(tmp_path / name)
        wanted = np.array([transform.TransformPoint(p[::-1].tolist())[::-1] for p in points.T]).T
        np.testing.assert_allclose(moved(tmp_path / name, points), wanted, rtol=0, atol=EXACT_UM)
    np.testing.assert_allclose(moved(tmp_path / "bent.h5", points), truth(points), rtol=0, atol=EXACT_UM)


@pytest.mark.parametrize("frame", [FRAME, SHIFTED])
def test_itk_reads_the_field_that_is_written(tmp_path: Path, frame: Frame) -> None:
    path, asked = tmp_path / "field.nrrd", []

    def planes(start: int, stop: int) -> Any:
        asked.append(stop - start)
        return np.float32(displaced(frame.centres((start, 0, 0), (stop - start, *frame.shape[1:]))))

    itk_files.write_field(path, frame, planes, 3)
    assert max(asked) == 3
    field = itk.DisplacementFieldTransform(itk.ReadImage(str(path), itk.sitkVectorFloat64))
    points = places(frame)
    found = np.array([field.TransformPoint(p[::-1].tolist())[::-1] for p in points.T]).T
    np.testing.assert_allclose(found, points + displaced(points), rtol=0, atol=EXACT_UM)
    np.testing.assert_allclose(moved(path, points), points + displaced(points), rtol=0, atol=EXACT_UM)


def test_ome_zarr_comes_back_and_only_boxes_are_read(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path, SHIFTED)
    points = places(SHIFTED)
    np.testing.assert_allclose(moved(path, points), points + displaced(points), rtol=0, atol=EXACT_UM)
    near = StoredTransform(str(path)).near(points[:, :1])
    assert near.displacement is not None
    assert near.displacement.shape[1:] == (2, 2, 2)
    assert StoredTransform(str(path)).held_bytes == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            '"path": "0",\n            "interpolation"',
            '"path": "../other/0",\n            "interpolation"',
            "no path below",
        ),
        (
            '"path": "0",\n            "interpolation"',
            '"path": "1",\n            "interpolation"',
            "none of its datasets",
        ),
        ("micrometer", "inch", "in one unit"),
        ('"name": "x"', '"name": "t"', "axes of"),
        ('"type": "translation"', '"type": "rotation"', "scale and translation|damaged"),
    ],
)
def test_an_ome_zarr_that_says_something_else_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = write_ome_zarr(tmp_path, FRAME)
    text = (path / "zarr.json").read_text()
    lines = " ".join(text.split())
    changed = lines.replace(" ".join(old.split()), " ".join(new.split()))
    assert changed != lines
    (path / "zarr.json").write_text(changed)
    with pytest.raises(SpecError, match=words):
        StoredTransform(str(path))


def write_ome_zarr(folder: Path, frame: Frame) -> Path:
    path = folder / "field.zarr"
    with atomic_group(path, overwrite=False, writer="test") as files:
        ome_zarr.write(
            files, frame, lambda box: displaced(frame.centres(box.start, box.shape)).astype(np.float32), "test"
        )
    return path


@pytest.mark.rival
def test_ngff_zarr_reads_and_writes_the_same_field(tmp_path: Path) -> None:
    """Needs ngff-zarr from 0.50 on, with itkwasm, which does not come with simexm."""
    ngff = pytest.importorskip("ngff_zarr")
    points = places(SHIFTED)
    read = ngff.from_ome_zarr(str(write_ome_zarr(tmp_path, SHIFTED)))
    (declared,) = read.metadata.coordinateTransformations
    (found,) = ngff.ngff_displacement_field_to_itk_transform(declared, read, ["z", "y", "x"])
    size, origin, spacing = (np.asarray(found.fixedParameters[a : a + 3]) for a in (0, 3, 6))
    image = itk.GetImageFromArray(np.reshape(found.parameters, (*map(int, size[::-1]), 3)), isVector=True)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    field = itk.DisplacementFieldTransform(itk.Cast(image, itk.sitkVectorFloat64))
    seen = np.array([field.TransformPoint(p[::-1].tolist())[::-1] for p in points.T]).T
    np.testing.assert_allclose(seen, points + displaced(points), rtol=0, atol=1e-3)

    axes = dict(zip("zyx", zip(SHIFTED.voxel_um, SHIFTED.first_um, strict=True), strict=True))
    theirs = ngff.to_multiscales(
        ngff.NgffImage(
            data=np.float32(displaced(SHIFTED.centres())),
            dims=("c", "z", "y", "x"),
            scale={"c": 1.0, **{name: float(v) for name, (v, _) in axes.items()}},
            translation={"c": 0.0, **{name: float(v) for name, (_, v) in axes.items()}},
            name="field",
            axes_units=dict.fromkeys("zyx", "micrometer"),
            axes_types={"c": "displacement"},
        ),
        scale_factors=[],
    )
    ngff.to_ome_zarr(str(tmp_path / "theirs.zarr"), ngff.declare_field_transform(theirs), version="0.6")
    np.testing.assert_allclose(moved(tmp_path / "theirs.zarr", points), points + displaced(points), rtol=0, atol=1e-3)


def test_an_alignment_is_exported_and_each_file_is_the_same_transform(known: Result, tmp_path: Path) -> None:
    points = places(FRAME)
    np.testing.assert_allclose(moved(Path(str(known.path)), points), truth(points), rtol=0, atol=2e-3)
    wanted = StoredTransform(str(known.path)).whole
    assert wanted.displacement is not None
    for form, name in (("nrrd", "transform.nrrd"), ("ome-zarr", "transform.zarr")):
        done = CliRunner().invoke(app, ["export", str(known.path), "-o", str(tmp_path), "--format", form])
        assert done.exit_code == 0, done.output
        assert done.stdout.split() == [str(tmp_path / name)]
        np.testing.assert_allclose(moved(tmp_path / name, points), wanted(points), rtol=0, atol=EXACT_UM)
        again = CliRunner().invoke(app, ["export", str(known.path), "-o", str(tmp_path), "--format", form])
        assert again.exit_code == 2
        export(known, tmp_path, form, overwrite=True)
    export(known, tmp_path, "points")
    table = pyarrow.csv.read_csv(tmp_path / "points.csv")
    fixed, moving = np.split(np.stack([table[n].to_numpy() for n in table.column_names]), 2)
    np.testing.assert_allclose(moving, wanted(fixed), atol=1e-9)
    assert ((moving >= 0) & (moving <= FRAME.extent_um[:, None])).all()
    for form in ("tfm", "txt"):
        with pytest.raises(OutputError, match="would lose"):
            export(known, tmp_path, form)
    with pytest.raises(OutputError, match="--pair"):
        export(known, tmp_path, "rnr-exm")
    with pytest.raises(OutputError, match="leave it out"):
        export(known, tmp_path, "nrrd", pair="mouse/5")
    with pytest.raises(OutputError, match="format of images"):
        export(known, tmp_path, "nrrd", labels="merged")


def test_a_start_on_another_grid_is_the_same_start(tmp_path: Path) -> None:
    """Within the cells of both grids; at the border each stays constant beyond its own outer centres."""
    coarse, within = Frame((5, 12, 8), (4.0, 1.0, 1.0)), Frame((3, 12, 6), (4.0, 1.0, 1.0), (4.0, 0.0, 1.0))
    points = places(within)
    found = align_known(itk, tmp_path, coarse)
    np.testing.assert_allclose(moved(Path(str(found.path)), points), truth(points), rtol=0, atol=3e-3)


def test_an_affine_map_is_written_for_itk_and_as_text(tmp_path: Path) -> None:
    from simexm.analysis.registration.foreign import text

    points = places(FRAME)
    itk_files.write_affine(tmp_path / "one.tfm.partial", AFFINE)
    (tmp_path / "one.tfm.partial").rename(tmp_path / "one.tfm")
    text.write(tmp_path / "one.txt", AFFINE)
    for name in ("one.tfm", "one.txt"):
        np.testing.assert_allclose(moved(tmp_path / name, points), Transform(AFFINE)(points), atol=1e-12)
    seen = np.array(
        [itk.ReadTransform(str(tmp_path / "one.tfm")).TransformPoint(p[::-1].tolist())[::-1] for p in points.T]
    )
    np.testing.assert_allclose(seen.T, Transform(AFFINE)(points), atol=1e-12)


def test_files_that_hold_no_transform_are_refused(tmp_path: Path) -> None:
    field = vectors(itk, FRAME, displaced(FRAME.centres()))
    turned, bad = itk.Image(field), itk.Image(field)
    turned.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    bad.SetPixel(3, 2, 1, [float("nan"), 0.0, 0.0])
    mirror = itk.ScaleTransform(3, [1.0, 1.0, -1.0])
    spline = itk.BSplineTransformInitializer(itk.GetImageFromArray(np.zeros((8, 8, 8))), [3, 3, 3])
    after = itk.CompositeTransform(
        [itk.DisplacementFieldTransform(itk.Image(field)), itk.TranslationTransform(3, [1.0, 0, 0])]
    )
    itk.WriteImage(turned, str(tmp_path / "turned.nrrd"))
    itk.WriteImage(bad, str(tmp_path / "bad.nrrd"))
    itk.WriteImage(itk.GetImageFromArray(np.zeros((4, 4, 4))), str(tmp_path / "grey.nrrd"))
    for name, transform in (("mirror", mirror), ("spline", spline), ("after", after)):
        itk.WriteTransform(transform, str(tmp_path / f"{name}.h5"))
    (tmp_path / "words.txt").write_text("one two three\n")
    with h5py.File(tmp_path / "pair.h5", "w") as file:
        file["fixed"] = np.zeros((4, 4, 4))
    cases = {
        "turned.nrrd": "turned",
        "bad.nrrd": r"along x at voxel \(1, 2, 3\)",
        "grey.nrrd": "1 numbers for each pixel",
        "mirror.h5": "determinant",
        "spline.h5": "BSplineTransform",
        "after.h5": "before them one displacement field",
        "words.txt": "affine map",
        "pair.h5": "transform of ITK",
    }
    for name, words in cases.items():
        with pytest.raises(SpecError, match=words):
            StoredTransform(str(tmp_path / name))
