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
from simexm.stages.expansion.expansion import Expansion
from simexm.stages.installed import OrInstalled
from simexm.stages.microscope.confocal import Confocal
from simexm.stages.microscope.drift import Drift
from simexm.stages.microscope.image_scanning import ImageScanning
from simexm.stages.microscope.light_sheet import LightSheet
from simexm.stages.microscope.miniscope import Miniscope
from simexm.stages.microscope.spinning_disk import SpinningDisk
from simexm.stages.microscope.two_photon import TwoPhoton
from simexm.stages.microscope.widefield import Widefield
from simexm.stages.sample.activity import Activity
from simexm.stages.sample.barcodes import Barcodes
from simexm.stages.sample.blinking import Blinking
from simexm.stages.sample.labelling import Labelling
from simexm.stages.sample.motion import Motion
from simexm.stages.sample.regions import Regions
from simexm.stages.truth.labels import Truth

AnyMicroscope = Confocal | ImageScanning | SpinningDisk | Widefield | TwoPhoton | LightSheet | Miniscope
AnyDetector = Camera | Scmos | Emccd | Photomultiplier
BuiltIn = (
    Regions
    | Labelling
    | Activity
    | Motion
    | Barcodes
    | Expansion
    | Blinking
    | Drift
    | AnyMicroscope
    | AnyDetector
    | Truth
)
AnyStage = Annotated[
    Annotated[BuiltIn, Field(discriminator="stage")],
    OrInstalled(str(stage.model_fields["stage"].default) for stage in get_args(BuiltIn)),
]

MICROSCOPES = ", ".join(str(m.model_fields["stage"].default) for m in get_args(AnyMicroscope))
"""Their names in a spec, for messages."""

__all__ = [
    "MICROSCOPES", "Activity", "AnyStage", "Barcodes", "Blinking", "Camera", "Confocal", "Drift", "Emccd", "Expansion",
    "ImageScanning", "Labelling", "LightSheet", "Miniscope", "Motion", "Photomultiplier", "Regions", "Scmos", "SpinningDisk",
    "Truth", "TwoPhoton", "Widefield",
]  # fmt: skip
