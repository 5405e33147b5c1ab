"""The image of one small bead by simexm and by other programs: widths, light in planes out of focus, time.

python -m benchmarks.bead simexm psf --other microsim=PYTHON --other biobeam=PYTHON

Each program is run by the Python that has it: this one, or one that is named. `pip install microsim==0.0.12.post0`;
`pip install biobeam six pyopencl pocl-binary-distribution` (OpenCL on the processor). The bead is a point, the objective has
NA 1.15 in an index of 1.333, light of 488 nm excites and 520 nm is seen, the pinhole is one Airy unit wide.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Stack = Callable[[Array, int, float], Array]
"""Planes (z, y, x) of the bead's image at distances z in um, an odd number of pixels a side, of this size in um."""

NA, INDEX, EXCITED_UM, SEEN_UM = 1.15, 1.333, 0.488, 0.520
PINHOLE_UM = 0.61 * SEEN_UM / NA
OUT_OF_FOCUS_UM = (1.0, 2.0, 5.0)


def turned(z_um: Array, n: int, pixel_um: float, table: Callable[[Array, Array], Array]) -> Array:
    """Planes of a response about its axis, from `table`(z, r), (nz, nr) in um."""
    from scipy.interpolate import CubicSpline

    r = np.arange(0, pixel_um * n * 0.75 + 0.1, 0.01)
    x = (np.arange(n) - n // 2) * pixel_um
    return np.asarray(CubicSpline(r, table(z_um, r), axis=1)(np.hypot(x[:, None], x)))


def simexm_stacks() -> dict[str, Stack]:
    """Of simexm's own kernels."""
    from simexm.kernels.diffraction import response, tables
    from simexm.kernels.diffraction.objective import Objective

    def widefield(z: Array, r: Array) -> Array:
        return tables.emission_table(np.abs(z) * 1e3, r * 1e3, SEEN_UM * 1e3, Objective(NA, INDEX))

    def confocal(fill: float) -> Callable[[Array, Array], Array]:
        def table(z: Array, r: Array) -> Array:
            lens, z_nm, r_nm = Objective(NA, INDEX), np.abs(z) * 1e3, r * 1e3
            beam = tables.excitation_table(z_nm, r_nm, EXCITED_UM * 1e3, lens._replace(fill=fill))
            return beam * response.pinhole_table(z_nm, r_nm, SEEN_UM * 1e3, lens, PINHOLE_UM * 1e3)

        return table

    return {
        "widefield": lambda z, n, p: turned(z, n, p, widefield),
        "confocal, fill 1": lambda z, n, p: turned(z, n, p, confocal(1.0)),
        "confocal, even": lambda z, n, p: turned(z, n, p, confocal(np.inf)),
    }


def psf_stacks() -> dict[str, Stack]:
    """Of the `psf` package, its ISOTROPIC type; the laser is 1/e^2 at the edge."""
    import psf

    def made(kind: psf.PsfType, magnification: float) -> Callable[[Array, Array], Array]:
        def table(z: Array, r: Array) -> Array:
            step = float(np.gcd.reduce(np.rint(np.abs(z) * 1000).astype(int))) / 1000 or 1.0
            rows = np.rint(np.abs(z) / step).astype(int)
            shape = (int(rows.max()) + 2, r.size)  # it computes with NaN if there is one row
            size = ((shape[0] - 1) * step, float(r[-1]))
            found = psf.PSF(
                psf.ISOTROPIC | kind, shape, size, ex_wavelen=EXCITED_UM * 1e3, em_wavelen=SEEN_UM * 1e3, num_aperture=NA,
                refr_index=INDEX, pinhole_radius=PINHOLE_UM, magnification=magnification,
            )  # fmt: skip
            data: Array = np.asarray(found.data)[rows]
            return data

        return table

    return {
        "widefield": lambda z, n, p: turned(z, n, p, made(psf.EMISSION, 1.0)),
        "widefield, magnification 60": lambda z, n, p: turned(z, n, p, made(psf.EMISSION, 60.0)),
        "confocal": lambda z, n, p: turned(z, n, p, made(psf.CONFOCAL, 1.0)),
    }


def microsim_stacks() -> dict[str, Stack]:
    """Of microsim; also with the wavelengths that its own Confocal takes."""
    from microsim.psf import make_confocal_psf, vectorial_psf  # type: ignore[import-not-found]
    from microsim.schema import ObjectiveLens  # type: ignore[import-not-found]

    # `na` is the alias that sets the aperture, `numerical_aperture` the name that its check reads
    indices = ("immersion_medium_ri", "immersion_medium_ri_spec", "specimen_ri", "coverslip_ri", "coverslip_ri_spec")
    lens = ObjectiveLens(na=NA, numerical_aperture=NA, **dict.fromkeys(indices, INDEX))
    common = {"objective": lens, "sf": 3, "normalize": False}

    def widefield(z: Array, n: int, pixel: float) -> Array:
        return np.asarray(vectorial_psf(tuple(z), nx=n, dxy=pixel, wvl=SEEN_UM, **common))

    def confocal(laser: float) -> Stack:
        def stack(z: Array, n: int, pixel: float) -> Array:
            step = float(z[1] - z[0]) if z.size > 1 else 1.0
            most = round(max(np.abs(z)) / step)
            n_psf = max(n, 2 * round(3 * PINHOLE_UM / pixel) + 1)
            planes = np.asarray(
                make_confocal_psf(
                    nz=2 * most + 1, dz=step, nx=n_psf, dxy=pixel, ex_wvl_um=laser, em_wvl_um=SEEN_UM, pinhole_au=1.0, **common
                )
            )  # fmt: skip
            cut = slice((n_psf - n) // 2, (n_psf - n) // 2 + n)
            seen: Array = planes[np.rint(z / step).astype(int) + most][:, cut, cut]
            return seen

        return stack

    return {
        "widefield": widefield,
        "confocal, even": confocal(EXCITED_UM),
        "confocal, as its Confocal calls it": confocal(SEEN_UM),
    }


def biobeam_stacks() -> dict[str, Stack]:
    """Of biobeam: its focus, of two polarisations; at 520 nm it is a widefield image, as reciprocity says."""
    import biobeam  # type: ignore[import-not-found]

    def focus(z: Array, n: int, pixel: float) -> Array:
        step = float(np.diff(z).min()) if z.size > 1 else 1.0
        half = max(1, round(max(np.abs(z)) / step))
        shape, units = (n + 1, n + 1, 2 * half + 2), (pixel, pixel, step)
        u = biobeam.focus_field_beam(shape, units, lam=SEEN_UM, NA=NA, n0=INDEX, n_integration_steps=400)
        u = np.asarray(u, np.float64)[np.rint(z / step).astype(int) + half + 1]
        u = u + u.transpose(0, 2, 1)
        return np.asarray(u[:, 1:, 1:])

    return {"focus of even light": focus}


PROGRAMS = {"simexm": simexm_stacks, "psf": psf_stacks, "microsim": microsim_stacks, "biobeam": biobeam_stacks}


def width(place: Array, value: Array) -> float:
    """Full width at half maximum of a profile that is highest in its middle, in its unit of length."""
    from scipy.interpolate import CubicSpline

    middle = value.size // 2
    curve = CubicSpline(place, value - value[middle] / 2)
    roots = curve.roots(extrapolate=False)
    return float(min(roots[roots > place[middle]]) - max(roots[roots < place[middle]]))


def measured(stack: Stack) -> dict[str, Any]:
    """Widths in nm, light in planes out of focus over that in focus within 20 um, and core-seconds of 101 planes."""
    x = np.asarray((np.arange(101) - 50) * 0.01, np.float64)
    lateral = width(x, stack(np.array([0.0]), 101, 0.01)[0, 50])
    z = np.linspace(-2, 2, 201).round(6)
    axial = width(z, stack(z, 3, 0.01)[:, 1, 1])
    light = stack(np.arange(6.0), 401, 0.05).sum(axis=(1, 2))
    start = time.process_time()
    stack(np.arange(-50, 51) / 10, 101, 0.1)
    seconds = time.process_time() - start
    shares = [float(light[int(d)] / light[0]) for d in OUT_OF_FOCUS_UM]
    return {"lateral_nm": lateral * 1e3, "axial_nm": axial * 1e3, "light": shares, "core_seconds": seconds}


def main() -> None:
    """Measure one program, or print a table of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help=f"of {', '.join(PROGRAMS)}; run by this Python")
    parser.add_argument("--other", action="append", default=[], metavar="PROGRAM=PYTHON")
    parser.add_argument("--json", action="store_true", help="print what was measured, for scripts")
    given = parser.parse_args()
    if unknown := set(given.programs) - set(PROGRAMS):
        parser.error(f"no program {', '.join(unknown)}")
    found = {name: {kind: measured(stack) for kind, stack in PROGRAMS[name]().items()} for name in given.programs}
    for name, python in (each.split("=", 1) for each in given.other):
        command = [python, __file__, name, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        found |= json.loads(done.stdout.splitlines()[-1])
    if given.json:
        print(json.dumps(found))
        return
    print("| program | | width, nm | depth, nm | light 1, 2, 5 um off, % | core-seconds |")
    print("|---|---|---|---|---|---|")
    for name, kinds in found.items():
        for kind, m in kinds.items():
            light = ", ".join(f"{100 * share:.3g}" for share in m["light"])
            print(
                f"| {name} | {kind} | {m['lateral_nm']:.1f} | {m['axial_nm']:.1f} | {light} | {m['core_seconds']:.2f} |"
            )


if __name__ == "__main__":
    main()
