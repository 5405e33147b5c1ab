"""Measured stacks and aberrations without symmetry in a field that is shifted, curved or lit by a sheet that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simexm.kernels.devices.array_device import ArrayDevice
from simexm.kernels.devices.array_planes import Backend
from simexm.kernels.devices.cpu_device import CPU
from simexm.stages import LightSheet
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_image import expected_image
from tests.stages import test_field_devices as devices
from tests.stages.field_build import context_of, image, plan_of
from tests.stages.optics_build import microscope
from tests.stages.test_field import inside
from tests.stages.test_psf_stack import skewed, written
from tests.stages.test_sheet import irradiance, planes_from

SHAPE = (6, 24, 22)
RANGE_UM = 2.2
BENT: dict[str, Any] = {"field_curvature_radius_mm": 0.05}
MOVED = {"axial_nm": 150, "lateral_nm": [70, -130], "magnification": 1.03}
ABERRATED: dict[str, Any] = {"zernike": [{"n": 2, "m": 2, "nm": 40}, {"n": 3, "m": -1, "nm": 25}]}


@pytest.fixture(params=["measured", pytest.param("aberrated", marks=pytest.mark.slow)])
def response(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keys of a response without symmetry about the axis."""
    monkeypatch.setattr("simexm.stages.microscope.optics_grid.LATERAL_SHARE", 0.98)  # far rings do not matter here
    if request.param == "aberrated":
        return ABERRATED
    return {"psf_stack": {"path": written(tmp_path / "skewed.ome.tif", skewed().astype(np.float32), plane=200.0)}}


def seen(kind: str, chromatic: dict[str, Any] | None = None, *, plane: float = 400.0, **more: Any) -> Optics:
    """A microscope whose channel is shifted."""
    plain = microscope(kind, pixel=200.0, plane=plane, na=0.8, axial_range_um=RANGE_UM, **more)
    channels = [{**c.model_dump(exclude_none=True), "chromatic": chromatic} for c in plain.all_channels]
    return type(plain).model_validate({**plain.model_dump(exclude_none=True), "channels": channels})


def test_a_shift_of_a_plane_and_some_pixels_shows_the_same_image_there(response: dict[str, Any]) -> None:
    points = inside(SHAPE, 1)
    plain, _ = image(seen("widefield", **response), SHAPE, points)
    shifted, plan = image(seen("widefield", {"axial_nm": 400, "lateral_nm": [400, -200]}, **response), SHAPE, points)
    assert plan.pairs[0].planar is not None
    same = plain[:, 1:, 3:-5, 5:-3], shifted[:, :-1, 5:-3, 4:-4]
    assert np.abs(same[0] - same[1]).max() < 3e-6 * plain.max()


def test_a_sheet_lights_what_the_response_shows_of_moved_dyes(response: dict[str, Any]) -> None:
    """Each dye is that of a widefield image with the same shift and focus, times the light in its own place."""
    shape, waist_um = (5, 14, 60), 1.2
    rng = np.random.default_rng(6)
    points = np.array(shape) * (600, 200, 200) * rng.uniform(0.2, 0.8, (5, 3))
    plain = seen("widefield", MOVED, plane=600.0, haze=False, **response, **BENT)
    sheet = seen(
        "light_sheet", MOVED, plane=600.0, haze=False, sheet_waist_um=waist_um, sheet_along="x", **response, **BENT
    )
    found, plan = image(sheet, shape, points)
    relative = irradiance(waist_um, planes_from(points), points[None, :, 2] / 1000 - 6.0)
    exact = np.zeros(shape)
    for n, point in enumerate(points):
        exact += image(plain, shape, point[None, :])[0][0] * relative[:, n, None, None]
    assert plan.rank > 1
    assert plan.pairs[0].planar is not None
    assert np.abs(found[0] - exact).max() < 1.5e-3 * exact.max()
    assert relative.min() < 0.1 < 0.9 < relative.max()
    tiled, _ = image(sheet, shape, points, tile=(3, 14, 33))
    assert np.abs(found - tiled).max() < 2e-6 * found.max()


def test_images_agree_on_both_devices(response: dict[str, Any], backend: Backend) -> None:
    optics = LightSheet.model_validate({**devices.GIVEN, **response, "axial_range_um": 1.1})
    context = context_of(optics, devices.SHAPE, devices.FRAME)
    plan = plan_of(context)
    found = [
        device.to_host(
            expected_image(optics, plan, devices.on(device, devices.POINTS), context.dyes, devices.TILE, device)
        )
        for device in (CPU, ArrayDevice(backend))
    ]
    assert np.abs(found[0] - found[1]).max() < 2e-6 * found[0].max()
