"""Microscopes on chosen dyes, with nothing else of the pipeline; and what each pixel should be, by brute force."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Tiling, Triple, exact3
from simexm.geometry.transform import IDENTITY
from simexm.kernels.diffraction.tables import SURFACE
from simexm.kernels.emission.points import Emitters
from simexm.spectra.dyes import LikeDye
from simexm.spectra.efficiency import EVERY_PHOTON
from simexm.spectra.fluorophores import Fluorophore, load_builtin
from simexm.stages import Confocal, ImageScanning, LightSheet, SpinningDisk, TwoPhoton, Widefield
from simexm.stages.contract import EXPANDED, EXPECTED, Chunk, EmitterStream, RunContext, Tile
from simexm.stages.microscope.objectives import focus_at
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import Channel, OpticsPair, OpticsPlan

Array = NDArray[np.float64]
SLAB_NM = 160.0
"""Thickness of the planes of voxels in which the dyes come."""

GREEN = {"name": "green", "laser_wavelength_nm": 488, "band_nm": (500, 550)}
INFRARED = {"name": "green", "laser_wavelength_nm": 800, "band_nm": (500, 550)}
ATTO488 = load_builtin()["ATTO488"]
TWO_PHOTON_DYE = LikeDye(like="ATTO488", two_photon_GM=50.0).load("ATTO488")


def microscope(
    kind: str, *, pixel: float, plane: float, na: float = 1.15, power: float = 20.0, **more: object
) -> Optics:
    """One green channel on one of the microscopes."""
    common = {"numerical_aperture": na, "pixel_size_nm": pixel, "plane_spacing_nm": plane, **more}
    if kind in ("confocal", "image_scanning"):
        scanner = Confocal if kind == "confocal" else ImageScanning
        return scanner.model_validate({**common, "channels": [{**GREEN, "laser_power_uW": power}]})
    if kind == "two_photon":
        channels = [{**INFRARED, "laser_power_uW": power * 100}]
        return TwoPhoton.model_validate({**common, "repetition_MHz": 80, "pulse_fs": 150, "channels": channels})
    channels = [{**GREEN, "irradiance_W_per_cm2": power}]
    common = {"haze": False, **common}
    if kind == "widefield":
        return Widefield.model_validate({**common, "channels": channels})
    if kind == "spinning_disk":
        return SpinningDisk.model_validate({"magnification": 60, **common, "channels": channels})
    return LightSheet.model_validate({"sheet_waist_um": 2.0, **common, "channels": channels})


def dye_of(optics: Optics) -> Fluorophore:
    """The dye that the microscope's channel is for."""
    return TWO_PHOTON_DYE if optics.multiphoton else ATTO488


class Bench:
    """A microscope over `shape` pixels, and nothing in front of it but dyes at chosen places (nm of expanded tissue, z y x)."""

    def __init__(
        self,
        optics: Optics,
        shape: Triple,
        dyes: Mapping[str, Fluorophore] | None = None,
        depth_nm: float | None = None,
    ) -> None:
        self.optics, self.shape = optics, shape
        self.dyes = dict(dyes) if dyes is not None else {"ATTO488": dye_of(optics)}
        depth = depth_nm if depth_nm is not None else shape[0] * optics.plane_spacing_nm
        slab = Box.of_shape((1, 1, 1))
        thick = exact3((depth, 1, 1))
        geometry = Geometry((1, 1, 1), slab, thick, exact3((0, 0, 0)), IDENTITY, optics.spacing_nm)
        self.resolved = optics.resolve(self.dyes, geometry, EVERY_PHOTON)
        assert isinstance(self.resolved.formation, OpticsPlan)
        self.plan = self.resolved.formation
        self.pitch = np.array([float(s) for s in optics.spacing_nm])

    @property
    def pair(self) -> OpticsPair:
        """The first dye in the first channel."""
        return self.plan.pairs[0]

    @property
    def channel(self) -> Channel:
        """The first channel."""
        return self.optics.all_channels[0]

    @property
    def dye(self) -> Fluorophore:
        """The first dye."""
        return self.dyes[self.pair.dye]

    def response(self, z_nm: Array, r_nm: Array, plane: int | None = None) -> Array:
        """Response of the first pair, straight from the microscope, (nz, nr); of this plane, where they differ."""
        focus = SURFACE
        if plane is not None and self.plan.depths is not None:
            depth = self.plan.depths.start_nm + plane * self.plan.depths.plane_nm
            focus = focus_at(self.optics.lens, self.optics.focus_nm, depth)
        return self.optics.response(self.channel, self.dye, self.pair.emission_nm, z_nm, r_nm, focus)

    def halved(self) -> OpticsPlan:
        """The same plan on a simulation grid of half the pitch."""
        plan = self.plan
        (mz, my, mx), (z, y, x) = plan.subdivision, plan.node_nm
        return replace(
            plan,
            subdivision=(2 * mz, 2 * my, 2 * mx),
            node_nm=(z / 2, y / 2, x / 2),
            reach=2 * plan.reach,
            whole_per_nm=1.0,  # beyond the grid's own limit
            band_per_nm=1.0,
        )

    def centre(self) -> Array:
        """Centre of the middle pixel, nm."""
        return np.asarray((np.array(self.shape) // 2 + 0.5) * self.pitch)

    def image(
        self, points: Mapping[str, Array] | Array, *, tile: Triple | None = None, plan: OpticsPlan | None = None
    ) -> NDArray[np.float32]:
        """Expected image (channel, z, y, x) of points (n, 3) by dye, computed in tiles."""
        by_dye = points if isinstance(points, Mapping) else {next(iter(self.dyes)): np.atleast_2d(points)}
        everything = Box.of_shape(self.shape)
        image = np.empty((len(self.optics.all_channels), *self.shape), np.float32)
        volume = Box.of_shape((1, 1, 1))
        one = exact3((1, 1, 1))
        geometry = Geometry((1, 1, 1), volume, one, one, IDENTITY, self.optics.spacing_nm)
        imaging = replace(self.resolved, formation=plan or self.plan)
        names = tuple(c.name for c in self.optics.all_channels)
        context = RunContext(0, geometry, {}, {d: d for d in by_dye}, imaging, channels=names, dyes=self.dyes)
        for box in Tiling(everything, tile or self.shape):
            made = Tile(context, box, values={EXPANDED.name: _stream(by_dye)})
            self.optics.run(made.of(self.optics))
            image[(slice(None), *box.slices)] = made.values[EXPECTED.name]
        return image

    def direct(self, points: Array, planes: Sequence[int] | None = None) -> Array:
        """What each pixel (z, y, x) expects of the first pair: the response integrated over it, dye by dye, by quadrature."""
        planes = range(self.shape[0]) if planes is None else planes
        image = np.zeros((len(planes), *self.shape[1:]))
        places = np.atleast_2d(points)
        for i, k in enumerate(planes):
            distances = places[:, 0] - (k + 0.5) * self.pitch[0]
            r, profiles = self.profiles(distances, k)
            for n in np.flatnonzero(np.abs(distances) <= self.plan.range_nm + 1e-6):
                image[i] += self._spot(CubicSpline(r, profiles[n]), places[n, 1:])
        return image

    def _spot(self, curve: CubicSpline, place: Array) -> Array:
        """Image of one dye in a plane, from its profile: Gauss-Legendre over each pixel, cut as finely as it asks."""
        pitch = self.pitch[1]
        parts = math.ceil(pitch / 50)
        nodes, weights = np.polynomial.legendre.leggauss(4)
        offsets = ((np.arange(parts)[:, None] + (nodes + 1) / 2) / parts).ravel() * pitch
        weight = np.tile(weights / 2 / parts, parts) * pitch
        y, x = (
            (np.arange(n)[:, None] * pitch + offsets - c).ravel() for n, c in zip(self.shape[1:], place, strict=True)
        )
        values = curve(np.hypot(y[:, None], x[None, :])).reshape(
            self.shape[1], offsets.size, self.shape[2], offsets.size
        )
        return np.asarray(np.einsum("aibj,i,j->ab", values, weight, weight))

    def profiles(self, distance_nm: Array, plane: int = 0) -> tuple[Array, Array]:
        """Radii in steps of 5 nm as far as the image reaches, and the response there at distances below the plane."""
        r = np.arange(0, math.hypot(*(n * p for n, p in zip(self.shape[1:], self.pitch[1:], strict=True))) + 50, 5.0)
        return r, self.response(distance_nm, r, plane)


def _stream(points: Mapping[str, Array]) -> EmitterStream:
    """Points by dye as labelling hands them on: plane of voxels by plane of voxels, each begun by a floor."""

    def chunks(dye: str) -> Iterator[Chunk]:
        here = points[dye]
        slab = np.floor(here[:, 0] / SLAB_NM).astype(int)
        for s in range(int(slab.max(initial=-1)) + 1):
            some = here[slab == s]
            n = len(some)
            ones, zeros = np.ones(n, np.int32), np.zeros(n, np.int32)
            z, y, x = (np.ascontiguousarray(some[:, a]) for a in range(3))
            yield Chunk(None, Emitters.empty(0), float(s * SLAB_NM))
            yield Chunk(dye, Emitters(z, y, x, ones, zeros, ones.astype(np.uint8)), -math.inf)

    return EmitterStream({d: d for d in points}, SLAB_NM, chunks)
