"""Figures of real detectors, from their makers' public data sheets.

Quantum efficiencies are those at the peak. Figures that a sheet does not give are left out: the model's own defaults apply.
Dark current is left out: at the sheets' temperatures it is below 0.01 electrons in an exposure of 100 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A device: stage of its model, figures by key, and where they come from."""

    stage: str
    figures: Mapping[str, Any]
    source: str
    frames_per_s: float | None = None
    """Most frames that it gives, if known."""


PRESETS: Mapping[str, Preset] = {
    "CoolSNAP HQ2": Preset(
        "camera",
        {
            "quantum_efficiency": 0.6,
            "frame_pixels": (1040, 1392),
            "full_well_e": 16_000,
            "read_noise_e": 4.5,
            "bits": 14,
        },
        "Photometrics, CoolSNAP HQ2 data sheet: Sony ICX285 interline CCD, 1392 x 1040, single-pixel full well 16,000 e, read "
        "noise 4.5 e rms at 10 MHz, 14 bits, more than 60 % peak efficiency",
    ),
    "Miniscope V4": Preset(
        "camera",
        {
            "quantum_efficiency": 0.56,
            "frame_pixels": (608, 608),
            "full_well_e": 10_000,
            "read_noise_e": 9,
            "gain_counts_per_e": 0.024,
            "offset_counts": 4,
            "bits": 8,
        },
        "Aharoni-Lab, Miniscope-v4: onsemi PYTHON 480, 608 x 608 pixels of 4.8 um used, sent as 8 bits. As the PYTHON family's "
        "data sheet is quoted, not compared with it: 56 % at 550 nm, full well 10,000 e, read noise below 9 e, 0.096 counts of "
        "10 bits per e, a quarter of it in 8 bits; the offset is a choice, for a black level just above 0; 120 frames per second",
        frames_per_s=120,
    ),
    "ORCA-Flash4.0 V3": Preset(
        "scmos",
        {
            "quantum_efficiency": 0.82,
            "frame_pixels": (2048, 2048),
            "full_well_e": 30_000,
            "read_noise_e": 1.6,
            "read_noise_median_e": 1.0,
            "gain_counts_per_e": 1 / 0.46,
            "offset_counts": 100,
            "offset_spread_e": 0.3,
            "gain_spread": 0.0006,
            "bits": 16,
        },
        "Hamamatsu, ORCA-Flash4.0 V3 C13440-20CU data sheet: 82 % at 560 nm, full well 30,000 e, standard scan 1.6 e rms and "
        "1.0 e median, 0.46 e per count, offset 100 counts, DSNU 0.3 e rms, PRNU 0.06 % rms, 16 bits",
    ),
    "ORCA-Fusion": Preset(
        "scmos",
        {
            "quantum_efficiency": 0.80,
            "frame_pixels": (2304, 2304),
            "full_well_e": 15_000,
            "read_noise_e": 0.7,
            "read_noise_median_e": None,
            "gain_counts_per_e": 1 / 0.24,
            "offset_counts": 100,
            "offset_spread_e": 0.3,
            "gain_spread": 0.0006,
            "bits": 16,
        },
        "Hamamatsu, ORCA-Fusion C14440-20UP data sheet: 80 % at peak, full well 15,000 e, ultra-quiet scan 0.7 e rms (no median "
        "given: all pixels alike), 0.24 e per count, offset 100 counts, DSNU 0.3 e rms, PRNU 0.06 % rms, 16 bits",
    ),
    "Prime 95B": Preset(
        "scmos",
        {
            "quantum_efficiency": 0.95,
            "frame_pixels": (1200, 1200),
            "full_well_e": 80_000,
            "read_noise_e": 1.8,
            "read_noise_median_e": 1.6,
            "gain_counts_per_e": 0.81,
            "bits": 16,
        },
        "Teledyne Photometrics, Prime 95B data sheet: 95 % at peak, 1200 x 1200 of 11 um, full well 80,000 e, read noise 1.8 e "
        "rms and 1.6 e median, 16 bits; the gain lets these span the full well",
    ),
    "iXon Ultra 888": Preset(
        "emccd",
        {
            "quantum_efficiency": 0.95,
            "frame_pixels": (1024, 1024),
            "full_well_e": 80_000,
            "register_well_e": 730_000,
            "read_noise_e": 45,
            "clock_induced_e": 0.005,
            "bits": 16,
        },
        "Andor, iXon Ultra 888 data sheet: more than 95 % at peak, 1024 x 1024, active-area well 80,000 e, gain register "
        "730,000 e, clock-induced charge 0.005 events per pixel, 16 bits; read noise 45 e at 10 MHz: Andor, Dynamic range "
        "in EMCCDs, andor.oxinst.com",
    ),
    "iXon Ultra 897": Preset(
        "emccd",
        {
            "quantum_efficiency": 0.9,
            "frame_pixels": (512, 512),
            "full_well_e": 180_000,
            "register_well_e": 800_000,
            "read_noise_e": 50,
            "gain_counts_per_e": 0.081,
            "bits": 16,
        },
        "Andor, iXon Ultra 897 data sheet: more than 90 % at peak, 512 x 512, active-area well 180,000 e, gain register "
        "800,000 e, 16 bits, which the gain lets span the register; read noise 50 e at 10 MHz: hardware guide, version "
        "1.1, section 3.1.2",
    ),
    "R3896": Preset(
        "photomultiplier",
        {"quantum_efficiency": 0.25, "excess_noise": 1.2},
        "Hamamatsu, R3896 data sheet: multialkali cathode, 90 mA/W at 450 nm, which is 25 %; gain 9.5e6 from 9 dynodes, so "
        "delta = 6.0 each, and excess delta / (delta - 1) = 1.20",
    ),
    "H7422P-40": Preset(
        "photomultiplier",
        {"quantum_efficiency": 0.40},
        "Hamamatsu, H7422 series data sheet: GaAsP cathode, 40 % at 580 nm (no gain per dynode given: the model's excess noise)",
    ),
    "R10467U-40": Preset(
        "photomultiplier",
        {"quantum_efficiency": 0.45, "excess_noise": 1.001},
        "Hamamatsu, R10467U-40 hybrid detector (of the kind in Leica's HyD) data sheet: GaAsP cathode, 45 % at 500 nm; each "
        "electron frees about 1500 in the avalanche diode, so the pulses vary by 1 / 1500",
    ),
}
"""Presets by name."""
