"""What light and focus that change over the field add to the plan of a microscope."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from simexm.errors import SpecError
from simexm.kernels.imaging import gridding
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope import sheet
from simexm.stages.microscope.field import FieldPlan
from simexm.stages.microscope.optics_plan import Array, Channel, OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

_SAMPLED = 33
"""Places along the axis of a sheet at which its thickness is looked up for the axial range."""


def furthest_nm(field: FieldPlan | None) -> float:
    """How far along z the field moves dyes."""
    return 0.0 if field is None else max(abs(end) for end in field.axial_nm(0.0))


def brightest(optics: Optics, channel: Channel, dye: Fluorophore, z_nm: Array, field: FieldPlan) -> Array:
    """Most photons that a dye emits anywhere in the field, at a distance on either side, as a share of those at 0."""
    axial = channel.chromatic.axial_nm if channel.chromatic else 0.0
    y, x = sheet.places(field, 0.0, optics.along, _SAMPLED)
    deeper = np.asarray(field.depth_nm(y, x) + axial)[..., None]
    y, x = y[..., None], x[..., None]
    both = [optics.emitted_at(channel, dye, side * z_nm + deeper, y, x) for side in (1, -1)]
    photons = np.maximum(*both).reshape(-1, z_nm.size)
    return np.asarray((photons / np.maximum(photons.max(axis=1, keepdims=True), 1e-300)).max(axis=0))


def over_field(
    optics: Optics, plan: OpticsPlan, seen: list[tuple[Channel, Fluorophore]], depth_nm: float
) -> OpticsPlan:
    """Add to a plan what the field asks for: the terms of light, and how far the map of far dyes is moved."""
    field = plan.field
    if field is None:
        return plan
    if plan.haze is not None:
        moved = plan.haze.moved(field.offsets_nm(plan.halo_nm), optics.spacing_nm)
        plan = replace(plan, haze=moved)
    if not optics.by_terms:
        return plan
    optics.check_range(plan.range_nm)
    lit = sheet.lit_of(optics, field, seen)
    reach = plan.reach + gridding.MARGIN
    z = sheet.distances(float(plan.node_nm[0]), reach, depth_nm if plan.haze is not None else 0.0)
    reading_nm = plan.halo_nm
    if plan.haze is not None:
        reading_nm = max(reading_nm, plan.haze.map_pass(()).reach_pixels * optics.pixel_size_nm)
    places = sheet.places(field, reading_nm, optics.along)
    try:
        terms = sheet.decompose(lit, len(seen), z, *places, sheet.changing_axes(field, optics.along))
    except ValueError as error:
        raise SpecError(
            f"the light of the sheet changes so much over the field that {error}; give a thicker sheet, a shorter "
            "axial_range_um, or smaller frames (frame_pixels of the detector)"
        ) from error
    even = not optics.uneven and not any(field.axial_nm(plan.halo_nm))
    return replace(plan, terms=terms, signed=plan.signed or not even)
