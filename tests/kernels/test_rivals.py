"""Point spread functions of other programs, run by hand with `pytest -m rival`.

SIMEXM_MICROSIM names the Python of an environment with microsim 0.0.12.post0 (`pip install microsim==0.0.12.post0`), SIMEXM_BIOBEAM
that of one with biobeam 0.1.3 (`pip install biobeam six pyopencl pocl-binary-distribution`).
"""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from benchmarks import bead
from simexm.kernels.diffraction import response, tables
from simexm.kernels.diffraction.objective import Objective
from tests.markdown import ROOT

SCRIPT = """
import json, sys
import numpy as np
from microsim.psf import vectorial_psf_centered
from microsim.schema import ObjectiveLens

na, n = json.loads(sys.argv[1])
# `na` is the alias that sets the aperture, `numerical_aperture` the name that its check reads
lens = ObjectiveLens(na=na, numerical_aperture=na, immersion_medium_ri=n, immersion_medium_ri_spec=n, specimen_ri=n,
                     coverslip_ri=n, coverslip_ri_spec=n)
image = vectorial_psf_centered(nz=201, dz=0.02, nx=101, dxy=0.01, wvl=0.52, objective=lens, sf=3, normalize="max")
print(json.dumps([image[100, 50, 50:].tolist(), image[100:, 50, 50].tolist()]))
"""


@pytest.mark.rival
@pytest.mark.parametrize(("na", "n"), [(0.8, 1.333), (1.0, 1.333), (1.15, 1.333), (1.2, 1.333), (1.4, 1.515)])
def test_widefield_is_that_of_microsim(na: float, n: float) -> None:
    """Image of a dye along both axes, relative to its peak; so its widths, too."""
    python = os.environ.get("SIMEXM_MICROSIM")
    if not python:
        pytest.skip("SIMEXM_MICROSIM does not name a Python with microsim 0.0.12.post0")
    done = subprocess.run([python, "-c", SCRIPT, json.dumps([na, n])], capture_output=True, text=True, check=True)
    lateral, axial = (np.array(profile) for profile in json.loads(done.stdout.splitlines()[-1]))
    z, r = np.arange(101, dtype=np.float64) * 20.0, np.arange(51, dtype=np.float64) * 10.0
    ours = tables.emission_table(z, r, 520.0, Objective(na, n))
    theirs = np.outer(axial, lateral)
    np.testing.assert_allclose(ours[0] / ours[0, 0], lateral, atol=1e-4)
    np.testing.assert_allclose(ours[:, 0] / ours[0, 0], axial, atol=1e-4)
    found, expected = (response.Response(z, r, t) for t in (ours, theirs))
    assert response.fwhm_lateral_nm(found) == pytest.approx(response.fwhm_lateral_nm(expected), rel=1e-4)
    assert response.fwhm_axial_nm(found) == pytest.approx(response.fwhm_axial_nm(expected), rel=1e-4)


@pytest.mark.rival
@pytest.mark.parametrize(
    ("program", "pairs", "rel"),
    [
        ("microsim", {"widefield": "widefield", "confocal, even": "confocal, even"}, 5e-3),
        ("biobeam", {"focus of even light": "widefield"}, 5e-3),
    ],
)
def test_a_bead_is_as_wide_and_as_bright_as_theirs(program: str, pairs: dict[str, str], rel: float) -> None:
    """Widths, and light out of focus over that in focus."""
    python = os.environ.get(f"SIMEXM_{program.upper()}")
    if not python:
        pytest.skip(f"SIMEXM_{program.upper()} does not name a Python with {program}")
    command = [python, str(ROOT / "benchmarks/bead.py"), program, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])[program]
    stacks = bead.simexm_stacks()
    for name, own in pairs.items():
        ours, found = bead.measured(stacks[own]), theirs[name]
        for width in ("lateral_nm", "axial_nm"):
            assert ours[width] == pytest.approx(found[width], rel=rel)
        assert ours["light"] == pytest.approx(found["light"], rel=2 * rel, abs=1e-4)
