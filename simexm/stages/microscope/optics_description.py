"""Description of the optics for `plan`, warnings and results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from simexm.geometry.grid import Triple
from simexm.stages.microscope.field import IN_PLACE
from simexm.stages.microscope.optics_plan import LEFT_OUT_LIMIT, OpticsPlan
from simexm.stages.roles import ImagingDescription
from simexm.units import times

BLEACHING_PHOTONS = 1e5
"""Photons after which organic dyes in water begin to bleach noticeably (Eggeling et al. 1998, Anal. Chem. 70, 2651)."""


@dataclass(frozen=True)
class OpticsDescription(ImagingDescription):
    """Describe the simulation grid, the range of the response, and each pair."""

    plan: OpticsPlan
    bleaches: bool
    measured: bool
    of_light: tuple[str, ...] = ()

    def describe(self, tile: Triple) -> dict[str, Any]:
        """See `ImagingDescription`."""
        return {
            "simulation_grid_expanded_nm": [float(v) for v in self.plan.node_nm],
            "nodes_per_pixel": list(self.plan.subdivision),
            "axial_range_um": self.plan.range_nm / 1000,
            "lateral_radius_um": self.plan.radius_nm / 1000,
            "halo_pixels": [math.ceil(self.plan.reach / self.plan.subdivision[0]), self.plan.halo, self.plan.halo],
            "transform": list(self.plan.lateral(tile).nodes),
            **self._depths(),
            **self._haze(),
            **self._field(),
            "pairs": [
                {
                    "channel": p.channel,
                    "dye": p.dye,
                    "emission_nm": round(p.emission_nm, 3),
                    "electrons_per_dye_in_focus": p.in_focus,
                    "photons_per_dye_in_stack": p.emitted_in_stack,
                    "left_out_share": p.left_out,
                    "fwhm_axial_nm": p.fwhm_nm[0],
                    "fwhm_lateral_nm": p.fwhm_nm[1],
                    "deepest_peak": p.deepest_peak,
                }
                for p in self.plan.pairs
            ],
        }

    def _haze(self) -> dict[str, Any]:
        haze = self.plan.haze
        if haze is None:
            return {}
        nodes = [float(self.plan.node_nm[1]) * self.plan.subdivision[1] * p for p in haze.pixels]
        return {"haze": {"beyond_um": haze.reach_nm / 1000, "planes_nm": haze.coarse_nm, "nodes_nm": nodes}}

    def _field(self) -> dict[str, Any]:
        field, terms = self.plan.field, self.plan.terms
        if field is None:
            return {}
        found: dict[str, Any] = {"frame_pixels": list(field.frame), "axis_pixels": [n / 2 for n in field.frame]}
        if not math.isinf(field.radius_nm):
            found["focus_radius_mm"] = field.radius_nm / 1e6
            found["focus_deeper_nm"] = list(field.depths_nm(*field.extent_nm(0.0)))
        shifts = {self.plan.pairs[n].channel: s for n, s in enumerate(field.shifts) if s != IN_PLACE}
        if shifts:
            found["chromatic"] = {channel: shift.model_dump(mode="json") for channel, shift in shifts.items()}
        if terms is not None:
            found["light_terms"], found["light_terms_error"] = terms.rank, terms.error
        return {"field": found}

    def _depths(self) -> dict[str, Any]:
        depths = self.plan.depths
        if depths is None:
            return {}
        return {
            "first_plane_depth_um": depths.start_nm / 1000,
            "plane_distance_nm": depths.plane_nm,
            "depths_tabulated": len(depths.foci),
            "sharpest_below_plane_nm": list(depths.off_nm),
        }

    def rows(self) -> list[tuple[str, str]]:
        """See `ImagingDescription`."""
        halo = (math.ceil(self.plan.reach / self.plan.subdivision[0]), self.plan.halo, self.plan.halo)
        grid = f"{times(self.plan.node_nm)} nm expanded, {times(self.plan.subdivision)} nodes a pixel"
        rows = [
            ("simulation grid", grid),
            ("PSF", f"+-{self.plan.range_nm / 1000:.3g} um along z, halo {times(halo)} pixels"),
        ]
        if haze := self._haze().get("haze"):
            nodes = " to ".join(f"{nm:.4g}" for nm in (haze["nodes_nm"][0], haze["nodes_nm"][-1]))
            text = (
                f"light from beyond {haze['beyond_um']:.3g} um, by a map of the specimen on nodes of {nodes} nm: one more pass "
                "over the labels; `haze: false` leaves it out"
            )
            rows.append(("haze", text))
        depths = self.plan.depths
        if depths is not None:
            first, last = (f"{nm:.0f}" for nm in depths.off_nm)
            text = (
                f"first plane {depths.start_nm / 1000:.3g} um deep, planes {depths.plane_nm:.5g} nm apart in the gel; dyes are "
                f"sharpest {first} nm below the first plane, {last} nm below the last; {len(depths.foci)} depths tabulated"
            )
            rows.append(("depth", text))
        rows += self._field_rows()
        for p in self.plan.pairs:
            axial, lateral = p.fwhm_nm
            sheet = " and in the sheet's waist" if self.plan.terms is not None else ""
            deep = "" if p.deepest_peak is None else f", {p.deepest_peak:.0%} of its peak in the deepest plane"
            bare = ", not symmetric about the axis" if p.planar else ""
            width = f"{f'{axial:.0f}' if axial else '-'} x {lateral:.0f} nm"
            text = (
                f"{p.in_focus:.3g} electrons a dye in focus{sheet}{deep}, FWHM {width} "
                f"expanded{bare}, {p.left_out:.1%} of a thick stack's light left out; emits {p.emitted_in_stack:.3g} photons "
                "over the stack"
            )
            rows.append((f"{p.dye} in {p.channel}", text))
        return rows

    def _field_rows(self) -> list[tuple[str, str]]:
        found = self._field().get("field")
        if found is None:
            return []
        y, x = found["axis_pixels"]
        rows, frame = [], f"frames of {times(found['frame_pixels'])} pixels, optical axis at pixel {y:g}, {x:g} of each"
        if self.plan.field is not None and self.plan.field.seamed:
            rows.append(("field", frame))
        if "focus_deeper_nm" in found:
            low, high = found["focus_deeper_nm"]
            text = f"radius {found['focus_radius_mm']:.4g} mm: the focus lies {low:.4g} to {high:.4g} nm deeper than on the axis"
            rows.append(("curved focus", text))
        for channel, shift in found.get("chromatic", {}).items():
            deeper, (down, right), larger = shift["axial_nm"], shift["lateral_nm"], shift["magnification"]
            text = (
                f"focus {deeper:g} nm deeper, image {down:g} nm down and {right:g} nm to the right, {larger:g} times as large; "
                "the truth stays with the tissue"
            )
            rows.append((f"shift of {channel}", text))
        if "light_terms" in found:
            error = found["light_terms_error"]
            terms = found["light_terms"]
            text = f"a sum of {terms} terms, within {max(error, 1e-6):.1g} of its peak; each is transformed by itself"
            rows.append(("light over the field", text))
        return rows

    def remarks(self) -> list[str]:
        """Remark on a sheet taken as constant, and on bleaching where it is not simulated."""
        return [*self.of_light, *self._bleaching()]

    def _bleaching(self) -> list[str]:
        if self.bleaches:
            return []
        return [
            f"{p.dye} would emit {p.emitted_in_stack:.2g} photons in {p.channel}: most dyes bleach after "
            f"{BLEACHING_PHOTONS:.0e} to 1e6; set bleaching to simulate it, lower the light, or image fewer planes"
            for p in self.plan.pairs
            if p.emitted_in_stack > BLEACHING_PHOTONS
        ]

    def warnings(self) -> list[str]:
        """Warn of light beyond the axial range."""
        remedy = "record more planes of psf_stack, or leave it out" if self.measured else "give a larger axial_range_um"
        return [
            f"axial_range_um {self.plan.range_nm / 1000:.3g} leaves out {p.left_out:.0%} of the light of a uniformly "
            f"stained stack ({p.dye} in {p.channel}), so haze is too weak; {remedy}"
            for p in self.plan.pairs
            if p.left_out > LEFT_OUT_LIMIT
        ]

    def provenance(self) -> dict[str, Any]:
        """Share of each PSF's energy within the axial range, and what the field moves."""
        shares = [{"channel": p.channel, "dye": p.dye, "share": 1 - p.left_out} for p in self.plan.pairs]
        return {"psf_energy_share": shares, **self._field()}
