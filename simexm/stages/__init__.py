"""Stages: the steps of a simulation, one file each.

New physics is one more file and one more name in `BuiltIn`; or a package of its own, see `simexm.stages.installed`.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from simexm.stages.barcodes import Barcodes
from simexm.stages.camera import Camera
from simexm.stages.confocal import Confocal
from simexm.stages.expansion import Expansion
from simexm.stages.installed import OrInstalled
from simexm.stages.labelling import Labelling
from simexm.stages.light_sheet import LightSheet
from simexm.stages.regions import Regions
from simexm.stages.simexm2017_imaging import Imaging2017
from simexm.stages.simexm2017_labelling import Labelling2017
from simexm.stages.truth import Truth
from simexm.stages.two_photon import TwoPhoton
from simexm.stages.widefield import Widefield

BuiltIn = (
    Regions
    | Labelling
    | Barcodes
    | Expansion
    | Confocal
    | Widefield
    | TwoPhoton
    | LightSheet
    | Camera
    | Truth
    | Labelling2017
    | Imaging2017
)
AnyStage = Annotated[
    Annotated[BuiltIn, Field(discriminator="stage")],
    OrInstalled(str(stage.model_fields["stage"].default) for stage in get_args(BuiltIn)),
]

__all__ = [
    "AnyStage", "Barcodes", "Camera", "Confocal", "Expansion", "Imaging2017", "Labelling", "Labelling2017", "LightSheet",
    "Regions", "Truth", "TwoPhoton", "Widefield",
]  # fmt: skip
