"""Stages: the steps of a simulation, one file each.

To add one, write its file and list it in `BuiltIn`, or install it from another package (`simexm.stages.installed`).
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from simexm.stages.detector.camera import Camera
from simexm.stages.detector.emccd import Emccd
from simexm.stages.detector.photomultiplier import Photomultiplier
from simexm.stages.detector.scmos import Scmos
from simexm.stages.expansion.uniform import Expansion
from simexm.stages.installed import OrInstalled
from simexm.stages.microscope.confocal import Confocal
from simexm.stages.microscope.light_sheet import LightSheet
from simexm.stages.microscope.two_photon import TwoPhoton
from simexm.stages.microscope.widefield import Widefield
from simexm.stages.sample.barcodes import Barcodes
from simexm.stages.sample.labelling import Labelling
from simexm.stages.sample.regions import Regions
from simexm.stages.truth.labels import Truth

BuiltIn = (
    Regions | Labelling | Barcodes | Expansion
    | Confocal | Widefield | TwoPhoton | LightSheet
    | Camera | Scmos | Emccd | Photomultiplier
    | Truth
)  # fmt: skip
AnyStage = Annotated[
    Annotated[BuiltIn, Field(discriminator="stage")],
    OrInstalled(str(stage.model_fields["stage"].default) for stage in get_args(BuiltIn)),
]

__all__ = [
    "AnyStage", "Barcodes", "Camera", "Confocal", "Emccd", "Expansion", "Labelling", "LightSheet", "Photomultiplier",
    "Regions", "Scmos", "Truth", "TwoPhoton", "Widefield",
]  # fmt: skip
