"""Moved dyes, and light over the field, give the same image on a GPU's arrays as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from simexm.geometry.grid import Box
from simexm.kernels.devices.array_device import ArrayDevice
from simexm.kernels.devices.array_planes import Backend
from simexm.kernels.devices.cpu_device import CPU
from simexm.kernels.devices.device import Device
from simexm.kernels.emission.points import Emitters
from simexm.stages import LightSheet
from simexm.stages.contract import Chunk, EmitterStream
from simexm.stages.microscope.haze_image import map_dyes
from simexm.stages.microscope.optics_image import expected_image
from tests.stages.field_build import context_of, plan_of, scattered
from tests.stages.optics_build import GREEN, Array, _stream

SHAPE = (4, 10, 14)


def on(device: Device, points: Array) -> EmitterStream:
    """A stream of dyes whose arrays are the device's."""
    stream = _stream({"ATTO488": points})

    def chunks(dye: str) -> Iterator[Chunk]:
        for chunk in stream.chunks(dye):
            yield replace(chunk, emitters=Emitters(*(device.put(column) for column in chunk.emitters)))

    return replace(stream, chunks=chunks)


GIVEN: dict[str, Any] = {
    "sheet_waist_um": 1.5, "sheet_along": "x", "field_curvature_radius_mm": 0.1, "numerical_aperture": 0.7,
    "pixel_size_nm": 300.0, "plane_spacing_nm": 900.0, "axial_range_um": 1.5, "haze": False,
    "channels": [
        {**GREEN, "irradiance_W_per_cm2": 20.0, "chromatic": {"axial_nm": 200, "magnification": 1.03}}
    ],
}  # fmt: skip
TILE, FRAME = Box.of_shape(SHAPE), (7, 14)
POINTS = scattered(SHAPE, np.array([900.0, 300.0, 300.0]), 200, 1)


def test_images_agree(backend: Backend) -> None:
    optics = LightSheet.model_validate(GIVEN)
    context = context_of(optics, SHAPE, FRAME)
    plan = plan_of(context)
    assert plan.rank > 2
    found = [
        device.to_host(expected_image(optics, plan, on(device, POINTS), context.dyes, TILE, device))
        for device in (CPU, ArrayDevice(backend))
    ]
    assert np.abs(found[0] - found[1]).max() < 2e-6 * found[0].max()


def test_maps_of_far_dyes_are_equal(backend: Backend) -> None:
    deep = LightSheet.model_validate({**GIVEN, "haze": True, "axial_range_um": 8.0})
    plan = plan_of(context_of(deep, (14, *SHAPE[1:]), FRAME))
    assert plan.haze is not None
    wanted = plan.haze.map_pass(plan.layers())
    cells = wanted.cells(wanted.own(TILE, SHAPE), 0)
    maps = [map_dyes(wanted, cells, on(device, POINTS), plan, device) for device in (CPU, ArrayDevice(backend))]
    assert maps[0].any()
    assert maps[0].tobytes() == maps[1].tobytes()
