"""Display colours of emission wavelengths."""

from __future__ import annotations

import numpy as np

# Bright hues in spectral order. A channel must be visible even beyond 400 to 700 nm, so the blue end stays violet and the
# red end turns into magenta, which is no spectral colour.
_ANCHORS_NM = (400.0, 440.0, 490.0, 515.0, 580.0, 640.0, 700.0, 800.0)
_RED = (138, 32, 0, 0, 255, 255, 255, 255)
_GREEN = (43, 64, 255, 255, 255, 32, 0, 0)
_BLUE = (226, 255, 255, 32, 0, 0, 0, 160)


def wavelength_to_rgb(wavelength_nm: float) -> str:
    """Bright display colour of a wavelength as "RRGGBB", the form of `omero` metadata.

    Violet below 400 nm, red turning into magenta in the near infrared.
    """
    return "".join(f"{round(float(np.interp(wavelength_nm, _ANCHORS_NM, c))):02X}" for c in (_RED, _GREEN, _BLUE))
