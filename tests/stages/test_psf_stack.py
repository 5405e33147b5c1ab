"""Measured point spread functions: the image is made of them, wherever a dye lies and whatever the pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from simexm.errors import SpecError
from simexm.stages.microscope.psf_stack import load
from tests.stages.optics_build import Array, Bench, microscope
from tests.stages.test_haze import image as imaged

PIXEL, PLANE = 90.0, 100.0
WEAKENED: dict[str, Any] = {"tissue": {"emission_per_mm": 50.0}, "bleaching": {"photons": 1e5}}


def written(path: Path, values: NDArray[Any], pixel: float | None = PIXEL, plane: float | None = PLANE) -> Path:
    """The stack as an OME-TIFF that states its sizes."""
    sizes = {"PhysicalSizeX": pixel, "PhysicalSizeY": pixel, "PhysicalSizeZ": plane}
    units = {f"{k}Unit": "nm" for k, v in sizes.items() if v is not None}
    metadata = {"axes": "ZYX", **{k: v for k, v in sizes.items() if v is not None}, **units}
    tifffile.imwrite(path, values, ome=True, metadata=metadata)
    return path


def of_model(kind: str, folder: Path, planes: int = 29, pixels: int = 81) -> Path:
    """What the model shows of one dye in the middle of small pixels, on a background, in other units than electrons."""
    b = Bench(microscope(kind, pixel=PIXEL, plane=PLANE, axial_range_um=1.5), (planes, pixels, pixels))
    seen = b.image((np.array(b.shape) // 2 + 0.5) * b.pitch)[0]
    return written(folder / "bead.ome.tif", (100 + 5e4 * seen / seen.max()).astype(np.float32))


def skewed(planes: int = 25, pixels: int = 51) -> Array:
    """A spot that is not symmetric along any axis, and as bright in one plane as in another."""
    z, y, x = (np.arange(n, dtype=np.float64) - n // 2 for n in (planes, pixels, pixels))
    z, y, x = z[:, None, None] * PLANE / 300, y[:, None] * PIXEL, x * PIXEL
    spot = np.exp(-((y - 30 * z) ** 2) / 2 / 230**2 - x**2 / 2 / (170 + 15 * z**2) ** 2)
    spot = spot + 0.3 * np.exp(-((y - 190) ** 2 + (x - 300 - 50 * z) ** 2) / 2 / 210**2)
    return np.asarray(spot / spot.sum(axis=(1, 2), keepdims=True))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far rings of the model do not matter here; quicker."""
    monkeypatch.setattr("simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.98)


@pytest.mark.parametrize(
    "kind", ["two_photon", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("confocal", "widefield"))]
)
def test_a_stack_of_the_model_gives_its_image(kind: str, tmp_path: Path) -> None:
    path = of_model(kind, tmp_path)
    options = {"pixel": 130, "plane": 310, "axial_range_um": 1.2}
    ours, theirs = (
        Bench(microscope(kind, **options, **more), (7, 24, 22), depth_nm=5000)  # type: ignore[arg-type]
        for more in ({"psf_stack": {"path": path, "background": 100}}, {})
    )
    assert ours.plan.reach == theirs.plan.reach
    place = ours.centre() + np.array([40.0, 33.0, -57.0])
    found, expected = (b.image(place)[0] for b in (ours, theirs))
    middle = slice(2, 5)  # the outermost planes lie half in the range
    scale = found[middle].sum() / expected[middle].sum()
    assert abs(scale - 1) < 0.03  # the stack ends earlier than the rings of the model
    assert np.abs(found / scale - expected)[middle].max() < 5e-3 * expected.max()
    assert ours.pair.fwhm_nm == pytest.approx(theirs.pair.fwhm_nm, rel=0.05)
    assert ours.pair.in_focus == pytest.approx(theirs.pair.in_focus, rel=0.03)


def test_on_its_own_grid_the_image_of_a_dye_is_the_stack(tmp_path: Path) -> None:
    spot = skewed()
    optics = microscope("widefield", pixel=PIXEL, plane=PLANE, axial_range_um=1.1, psf_stack={
        "path": written(tmp_path / "skewed.ome.tif", spot.astype(np.float32))
    })  # fmt: skip
    b = Bench(optics, (21, 51, 51), depth_nm=4000)
    seen = b.image((np.array(b.shape) // 2 + 0.5) * b.pitch)[0]
    light = seen.sum(axis=(1, 2))
    emitted = optics.emitted(b.channel, b.dye, np.zeros(1))[0] * optics.collected(b.channel, b.dye)
    np.testing.assert_allclose(light[2:-2], emitted, rtol=1e-4)  # unit energy in each plane
    assert b.pair.in_focus == pytest.approx(emitted, rel=1e-3)
    assert np.abs(seen / light[:, None, None] - spot[2:-2])[1:-1].max() < 2e-3 * spot.max()


@pytest.mark.parametrize(
    "more", [WEAKENED, pytest.param({}, marks=pytest.mark.slow)], ids=["weakened by depth and dose", "as it is"]
)
def test_tiles_leave_no_seam(more: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path / "skewed.ome.tif", skewed().astype(np.float32))
    optics = microscope("widefield", pixel=140, plane=250, axial_range_um=1.1, psf_stack={"path": path}, **more)
    b = Bench(optics, (9, 33, 26))
    dyes = b.centre() + np.random.default_rng(2).uniform(-0.5, 0.5, (300, 3)) * b.pitch * b.shape
    whole, tiled = b.image(dyes), b.image(dyes, tile=(4, 13, 12))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()


@pytest.mark.slow
def test_a_scanner_keeps_what_each_plane_had(tmp_path: Path) -> None:
    fading = skewed() * np.exp(-(((np.arange(25) - 12) / 7) ** 2))[:, None, None]
    stack = {"path": written(tmp_path / "bead.ome.tif", fading.astype(np.float32)), "background": 0.0}
    kinds: tuple[dict[str, Any], ...] = ({"psf_stack": stack}, {})
    measured, model = (
        Bench(microscope("confocal", pixel=PIXEL, plane=PLANE, axial_range_um=1.1, **more), (21, 51, 51), depth_nm=4000)
        for more in kinds
    )
    light = measured.image((np.array(measured.shape) // 2 + 0.5) * measured.pitch)[0].sum(axis=(1, 2))
    assert light[10] == pytest.approx(model.pair.in_focus, rel=0.01)
    np.testing.assert_allclose((light / light[10])[1:-1], np.exp(-(((np.arange(1, 20) - 10) / 7) ** 2)), rtol=3e-3)


def test_a_channel_may_have_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "skewed.ome.tif", skewed().astype(np.float32))
    base = microscope("widefield", pixel=140, plane=250, axial_range_um=1.1).model_dump()
    green = {**base["channels"][0], "irradiance_W_per_cm2": 20.0}
    kind = type(microscope("widefield", pixel=140, plane=250))
    both = kind.model_validate({**base, "channels": [green, {**green, "name": "own", "psf_stack": {"path": path}}]})
    b = Bench(both, (5, 20, 20), depth_nm=4000)
    alone = Bench(microscope("widefield", pixel=140, plane=250, axial_range_um=1.1), (5, 20, 20), depth_nm=4000)
    assert [p.planar is not None for p in b.plan.pairs] == [False, True]
    seen = b.image(b.centre())
    assert np.abs(seen[0] - alone.image(b.centre())[0]).max() < 1e-4 * seen.max()
    assert np.abs(seen[1] - seen[0]).max() > 0.1 * seen.max()


@pytest.mark.parametrize(
    ("haze", "planes", "exact"),
    [
        (True, 25, False),
        pytest.param(None, 25, False, marks=pytest.mark.slow),
        pytest.param(True, 101, True, marks=pytest.mark.slow),
    ],
)
def test_beyond_the_stack_light_is_the_models_where_pixels_resolve_it(
    haze: bool | None, planes: int, exact: bool, tmp_path: Path
) -> None:
    """Else haze that is asked for is refused, and haze that is not is told to be left out."""
    if exact:
        b = Bench(microscope("widefield", pixel=PIXEL, plane=PLANE, axial_range_um=5.0, na=0.8), (planes, 121, 121))
        seen = b.image((np.array(b.shape) // 2 + 0.5) * b.pitch)[0]
        path = written(tmp_path / "deep.ome.tif", seen)
    else:
        path = written(tmp_path / "short.ome.tif", skewed(planes).astype(np.float32))
    given: dict[str, Any] = {"psf_stack": {"path": path, "background": 0.0}, "haze": haze, "na": 0.8}
    optics = microscope("widefield", pixel=260, plane=1000, **given)
    if haze and not exact:
        with pytest.raises(SpecError, match=r"psf_stack ends 1 um from the plane, too near for haze"):
            Bench(optics, (9, 9, 9), depth_nm=20_000)
        return
    resolved = Bench(optics, (9, 9, 9), depth_nm=20_000).resolved
    if not haze:
        assert any("record more planes of psf_stack" in w for w in resolved.description.warnings())
        return
    shape = (12, 40, 36)
    dyes = np.random.default_rng(4).random((200, 3)) * (12_000, 40 * 260, 36 * 260)
    (found, plan), (model, _) = (
        imaged(o, shape, dyes) for o in (optics, microscope("widefield", pixel=260, plane=1000, na=0.8, haze=True))
    )
    assert plan.haze is not None
    # 0.013 by the stack, which ends before the rings of the model, as the light of its planes does
    assert np.abs(found - model).max() < 0.02 * model.max()


def test_the_file_is_part_of_the_plan(tmp_path: Path) -> None:
    path = written(tmp_path / "skewed.ome.tif", skewed().astype(np.float32))
    optics = microscope("widefield", pixel=140, plane=250, axial_range_um=1.1, psf_stack={"path": path})
    planned = optics.resolved({})
    assert planned.psf_stack is not None
    assert len(planned.psf_stack.sha256 or "") == 64
    assert planned.resolved({}) == planned
    written(path, skewed()[::-1].astype(np.float32))
    with pytest.raises(SpecError, match="another file"):
        load(planned.psf_stack)


def with_value(value: float) -> Array:
    spot = skewed()
    spot[3, 4, 5] = value
    return spot


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (lambda: np.roll(skewed(), 4, axis=2), {}, r"not centred.* \+4\.\d columns"),
    (lambda: np.roll(skewed() * np.exp(-np.abs(np.arange(25) - 12) / 3)[:, None, None], -3, 0), {}, "not centred: .* -3.. planes"),
    (lambda: with_value(np.nan), {}, "1 values that are no numbers"),
    (lambda: with_value(-1.0), {}, "light is not negative"),
    (lambda: skewed()[10:15], {}, "5x51x51 values, too few"),
    (lambda: skewed()[:, 21:30, 21:30], {}, "25x9x9 values, too few"),
    (skewed, {"pixel": None}, "states no pixel_size_nm"),
    (skewed, {"plane": None}, "states no .*plane_spacing_nm"),
    (lambda: skewed()[:, 18:33, 18:33], {"background": 0.0}, "cut off"),
    (lambda: skewed()[8:-8], {}, "ends 0.4 um from its middle"),
    (lambda: skewed()[12], {}, "axes YX"),
    (lambda: np.stack([skewed()] * 3), {}, "axes"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "options", "names"), BAD)
def test_stacks_that_cannot_be_used_are_refused(
    values: Any, options: dict[str, Any], names: str, tmp_path: Path
) -> None:
    path, found = tmp_path / "bad.ome.tif", values().astype(np.float32)
    sizes = {k: v for k, v in options.items() if k in ("pixel", "plane")}
    if found.ndim == 3:
        written(path, found, **sizes)
    else:
        tifffile.imwrite(path, found, metadata={"axes": "CZYX"[-found.ndim :]})
    stack = {"path": path, **{k: v for k, v in options.items() if k == "background"}}
    with pytest.raises(SpecError, match=names):
        Bench(
            microscope("widefield", pixel=140, plane=250, axial_range_um=1.1, psf_stack=stack), (9, 9, 9), depth_nm=4000
        )


def test_sizes_of_the_spec_go_before_the_files(tmp_path: Path) -> None:
    path = written(tmp_path / "skewed.ome.tif", skewed().astype(np.float32), pixel=None, plane=None)
    stack = {"path": path, "pixel_size_nm": PIXEL, "plane_spacing_nm": PLANE}
    optics = microscope("widefield", pixel=140, plane=250, axial_range_um=1.1, psf_stack=stack)
    measured = optics.measured(optics.all_channels[0])
    assert measured is not None
    assert (measured.pixel_nm, measured.plane_nm, measured.extent_nm) == (PIXEL, PLANE, 12 * PLANE)


def test_other_misuse_is_refused(tmp_path: Path) -> None:
    stack = {"path": tmp_path / "missing.tif"}
    with pytest.raises(ValueError, match="count twice"):
        microscope("widefield", pixel=140, plane=250, psf_stack=stack, zernike=[{"n": 4, "nm": 20}])
    with pytest.raises(SpecError, match="cannot be read"):
        microscope("widefield", pixel=140, plane=250, psf_stack=stack).resolved({})
    (tmp_path / "missing.tif").write_text("no image")
    with pytest.raises(SpecError, match="not a TIFF"):
        microscope("widefield", pixel=140, plane=250, psf_stack=stack).resolved({})
