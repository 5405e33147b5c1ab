"""Find single molecules in the frames of a movie and fit each, as a job over blocks of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench
from simexm.analysis.localisation import drift as drifting
from simexm.analysis.localisation.bench import LocaliseBench
from simexm.analysis.localisation.camera import FrameCamera
from simexm.analysis.localisation.frames import Movie
from simexm.analysis.localisation.optics import Lens
from simexm.errors import OutputError
from simexm.names import FreeText
from simexm.result.result import Result
from simexm.store.location import is_url


class Localise(Analysis):
    """Find single molecules in a movie, and fit the place, photons and background of each by maximum likelihood.

    The input is a movie that simexm simulated, or frames of any format that `ingest` reads. It writes the table
    `localisations`, a row for each spot in each frame, with the standard deviations that Fisher's information allows; with
    `link_nm` the table `events`, and the table `shifts` where drift was corrected.

    Attributes
    ----------
    model
        gaussian: integrated over pixels, its width fitted. psf: the response of the simulation itself, or of `lens`.
    lens
        The objective of frames that simexm did not simulate.
    fit_z
        Whether the distance from the focal plane is fitted, by the model psf. By default where the response differs on both
        sides of it, as with a cylindrical lens.
    z_range_nm
        Range of that distance, of expanded tissue.
    camera
        The camera of frames that simexm did not simulate.
    pixel_size_nm
        Side of a pixel at the specimen, if the metadata do not hold it.
    channel
        Channel of a simulation, by name or number. Default: the only one.
    dataset
        Volume inside a Zarr or HDF5 file. Default: the only one.
    threshold
        Spots are looked for that stand out of the noise by so many standard deviations.
    sigma_nm
        Standard deviation of a spot. By default that of the optics, or 1.3 pixels.
    side_pixels
        Side of the square that is fitted, odd. Default: 6 standard deviations, with the model psf 8.
    link_nm
        Localisations of consecutive frames within this distance are one event. Default: not linked.
    link_gap_frames
        Frames that an event may be dark in between.
    drift
        How drift is found. Default: not corrected.
    drift_table
        Known drift, which is subtracted: a table `shifts`, with the columns time (frame, from 0), y_um, x_um and, if known, z_um,
        of a simulated movie, of another result of localise, or in a .csv or .parquet file.
    block_frames
        Frames of a block. It changes speed and memory, no number.
    """

    analysis: Literal["localise"] = "localise"
    model: Literal["gaussian", "psf"] = "gaussian"
    lens: Lens | None = None
    fit_z: bool | None = None
    z_range_nm: tuple[float, float] = (-600.0, 600.0)
    camera: FrameCamera | None = None
    pixel_size_nm: float | None = Field(default=None, gt=0, le=1e5)
    channel: FreeText | None = None
    dataset: FreeText | None = None
    threshold: float = Field(default=5.0, ge=1, le=100)
    sigma_nm: float | None = Field(default=None, gt=0, le=1e5)
    side_pixels: int | None = Field(default=None, ge=5, le=41)
    link_nm: float | None = Field(default=None, gt=0, le=1e5)
    link_gap_frames: int = Field(default=0, ge=0, le=10_000)
    drift: drifting.Correlation | None = None
    drift_table: FreeText | None = None
    block_frames: int = Field(default=100, ge=1, le=100_000)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.z_range_nm[0] >= self.z_range_nm[1]:
            raise ValueError(f"z_range_nm {list(self.z_range_nm)} is no range; give the lower end first")
        if self.side_pixels is not None and self.side_pixels % 2 == 0:
            raise ValueError(f"side_pixels {self.side_pixels} has no middle pixel; give {self.side_pixels + 1}")
        if self.drift is not None and self.drift_table is not None:
            raise ValueError("drift and drift_table would correct twice; leave one out")
        if self.fit_z and self.model == "gaussian":
            raise ValueError("fit_z: a Gaussian's width says no side of the focus; set model to psf")
        if self.lens is not None and self.model == "gaussian":
            raise ValueError("lens is for the model psf, which is not chosen; set model to psf, or leave lens out")
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open a movie."""
        if len(inputs) != 1:
            raise OutputError(f"localise reads one movie, not {len(inputs)}; type: simexm localise MOVIE")
        (one,) = inputs
        if isinstance(one, Movie):
            return (one,)
        path = str(one.path if isinstance(one, Result) else one)
        return (Movie(path if is_url(path) else str(Path(path).expanduser().absolute()), self.dataset, self.channel),)

    def open(self, inputs: tuple[Movie, ...]) -> Bench:
        """Check that the movie can be fitted."""
        return LocaliseBench(self, *inputs)
