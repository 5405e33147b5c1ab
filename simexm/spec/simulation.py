"""The root of a specification: source of labels, stages, and what to store."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from simexm import settings
from simexm.arguments import whole_numbers
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.geometry.grid import Box, Triple
from simexm.geometry.transform import Specimen, Transform, compose
from simexm.names import FreeText
from simexm.settings import Frozen
from simexm.sources.base import ZarrSource
from simexm.sources.fields import Field as SourceField
from simexm.sources.fields import masks_of, not_grey
from simexm.sources.phantom import Phantom
from simexm.sources.tissue import TissueSource
from simexm.spectra import bands
from simexm.spectra.curves import NamedCurve
from simexm.spectra.dyes import Dye
from simexm.spectra.efficiency import EVERY_PHOTON, Efficiency
from simexm.spectra.fluorophores import Fluorophore, find
from simexm.stages import MICROSCOPES, AnyStage, Barcodes, Truth
from simexm.stages.contract import LABELS
from simexm.stages.frames import NO_FRAME, Frame
from simexm.stages.roles import Detector, Labeller, Microscope
from simexm.stages.sample.barcodes import AMPLICONS
from simexm.stages.sample.layer import EVERYWHERE
from simexm.store.location import usable
from simexm.units import times

MEMBRANE, CYTOSOL = "membrane", "cytosol"

S = TypeVar("S")

Pixels = Annotated[int, Field(ge=1)]
Keep = Literal["expected", "labelled", "emitters"]


def _source_kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "zarr" if kind is None else str(kind)  # all files; their format is found when they are opened


Source = Annotated[
    Annotated[Phantom, Tag("phantom")] | Annotated[TissueSource, Tag("tissue")] | Annotated[ZarrSource, Tag("zarr")],
    Discriminator(_source_kind),
]


class Crop(Frozen):
    """A part of the source.

    Attributes
    ----------
    offset, shape
        First voxel and number of voxels, z y x. Voxels around the crop are read to find membranes, but carry no dye.
    """

    offset: tuple[int, int, int] = (0, 0, 0)
    shape: tuple[int, int, int]


class Execution(Frozen):
    """How the work is divided. Device, tile and block affect the bytes of the result.

    Attributes
    ----------
    device
        `auto`: a GPU if there is one. `gpu`: the same, with a warning if there is none. A run never mixes both.
    require_gpu
        Refuse to run without a GPU.
    memory_GiB
        Memory that one worker may use; decides the default tile.
    tile
        Pixels along z, y, x computed at once; by default as many as fit into memory.
    min_blocks
        Smallest number of blocks, if the image is large enough: it limits how many workers can be busy, but the halo costs
        more for small blocks. By default 4, or 16 if each block still takes five core-seconds.
    """

    device: Literal["auto", "cpu", "gpu"] = "auto"
    require_gpu: bool = False
    memory_GiB: float = Field(default=1.5, gt=0.6, le=1024)
    tile: tuple[Pixels, Pixels, Pixels] | None = None
    min_blocks: int | None = Field(default=None, ge=1, le=10**9)

    @model_validator(mode="after")
    def _device(self) -> Self:
        if self.require_gpu and self.device == "cpu":
            raise ValueError("device is cpu, but require_gpu is set; set device to gpu, or take require_gpu out")
        return self


class Spec(Frozen):
    """One simulated experiment.

    Attributes
    ----------
    name
        Name of the image.
    seed
        Seed of every random number.
    source
        Path or URL of labels, or a mapping: `{path, dataset, voxel_size_nm, regions}`, `{kind: phantom, shape, ...}`
        or `{kind: tissue, size_um, populations, ...}`.
        A relative path begins at the working directory.
    crop
        Part of the source; by default all of it.
    dyes
        Further dyes by name.
    curves
        Curves of light sources, filters, dichroics and detectors by name, for use in channels: the path of a CSV file with one
        curve, or a mapping.
    stages
        The steps of the experiment, in order.
    keep
        Intermediate results to store as well: `expected` (noise-free image), `labelled` (dyes per pixel and layer),
        `emitters` (every dye, as a table).
    execution
        How the work is divided.
    """

    name: FreeText = "simulation"
    seed: int = Field(default=0, ge=0, lt=2**63)
    source: Source
    crop: Crop | None = None
    dyes: dict[FreeText, Dye] = Field(default_factory=dict, max_length=1000)
    curves: dict[FreeText, NamedCurve] = Field(default_factory=dict, max_length=1000)
    stages: tuple[AnyStage, ...] = Field(min_length=1, max_length=100)
    keep: tuple[Keep, ...] = Field(default=(), max_length=100)
    execution: Execution = Execution()

    # ---------------------------------------------------------------- reading and writing

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], name: str = "the spec") -> Self:
        """Validate plain data.

        Raises
        ------
        SpecError
            If anything is wrong; the message lists all problems with their position.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise settings.explain(error, cls, name) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file; raises SpecError if it is missing or wrong."""
        return cls.from_mapping(settings.read(Path(usable(path))), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for `from_mapping`, without defaults."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        data["stages"] = [
            {"stage": s.model_dump()["stage"], **s.model_dump(mode="json", exclude_defaults=True)} for s in self.stages
        ]
        if not isinstance(self.source, ZarrSource):
            data["source"] = {"kind": self.source.kind, **data["source"]}
        return data

    def save(self, path: str | Path) -> None:
        """Write a YAML file, or JSON if the name ends in .json; raises OutputError if it cannot be written."""
        named = Path(usable(path))
        try:
            named.write_text(settings.dump(self.to_mapping(), named), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; name another file") from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values; raises SpecError if they are invalid."""
        return self.from_mapping({**self.model_dump(), **changes})

    # ---------------------------------------------------------------- checks

    @model_validator(mode="after")
    def _order(self) -> Self:
        written = {LABELS.name}
        for stage in self.stages:
            missing = [q.name for q in stage.inputs if q.name not in written]
            if missing:
                raise ValueError(
                    f"stage {stage.tag!r} reads {' and '.join(missing)}, which no earlier stage writes; "
                    "the usual order is regions, labelling, expansion, a microscope, a detector (such as camera), truth"
                )
            twice = [q.name for q in stage.writes if q.name in written and q not in stage.inputs]
            if twice:
                raise ValueError(f"a second stage {stage.tag!r} would write {' and '.join(twice)} again; remove one")
            written |= {q.name for q in stage.writes}
        if sum(isinstance(s, Barcodes) for s in self.stages) > 1:
            raise ValueError(
                "there are two stages barcodes, but a cell has one barcode; give all `amplicons` to one of them"
            )
        for role, name, what in (
            (Labeller, "emitters", "labelling"),
            (
                Microscope,
                "expected",
                f"a microscope ({MICROSCOPES})",
            ),
            (Truth, "truth", "truth"),
        ):
            if not any(isinstance(s, role) for s in self.stages):
                raise ValueError(f"no stage writes {name!r}, which every simulation needs; add {what}")
        available = written | ({"labelled"} if "emitters" in written else set())
        for name in self.keep:
            if name not in available:
                raise ValueError(f"keep: {name} cannot be stored, since none of these stages computes it; remove it")
        return self

    @model_validator(mode="after")
    def _regions_known(self) -> Self:
        known = (MEMBRANE, CYTOSOL, *self.masks)
        listed = f"the regions are {', '.join(known)}"
        for region, what in self.labeller.regions_used:
            if region not in known:
                raise ValueError(
                    f"{what} the region {region!r}, which does not exist, so it would stay empty; {listed}; give further masks "
                    "under source.regions"
                )
        for field, what in self.labeller.greys_used:
            if field not in self.fields or self.fields[field].kind != "grey":
                raise ValueError(f"{what} the field {field!r}, {not_grey(field, self.fields)}")
        for sites in self.barcodes.amplicons if self.barcodes else ():
            if sites.region not in known:
                raise ValueError(
                    f"barcodes: the region {sites.region!r} of amplicons does not exist, so there would be none; {listed}; "
                    "give further masks under source.regions"
                )
        for name in self.truth.regions:
            if name not in known:
                raise ValueError(f"truth.regions names {name!r}, which does not exist; {listed}")
        layers = [layer.name for layer in self.labeller.named_layers]
        reserved = {AMPLICONS, *self.barcodes.layer_of_dye.values()} if self.barcodes else set()
        if clash := reserved & set(layers):
            raise ValueError(f"the layer {min(clash)!r} has the name that amplicons go by; rename it")
        layers.append("cells")
        if clash := set(layers) & {f"{layer}_{region}" for layer in layers for region in self.truth.regions}:
            raise ValueError(f"the layer {min(clash)!r} has the name of a region's label image; rename it")
        for name in self.masks:
            if name in (MEMBRANE, CYTOSOL, EVERYWHERE):
                raise ValueError(
                    f"a mask cannot be named {name!r}, which is a region of every source; give it another name"
                )
        return self

    @model_validator(mode="after")
    def _light(self) -> Self:
        try:
            dyes = self.fluorophores()
            self._check_letters()
            self.microscope.check(dyes, float(self.transform().scale), self.efficiency)
            if self.detector:
                self.detector.check(self.microscope)
            self._warn_of_dim_dyes(dyes)
        except SpecError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_letters(self) -> None:
        letters, channels = self.barcodes.dyes if self.barcodes else {}, self.microscope.all_channels
        if len(letters) > len(channels):
            raise SpecError(
                f"{len(letters)} letters have as many dyes, but there are {len(channels)} channels, which cannot "
                "distinguish them; give at least one channel for each letter's dye"
            )

    def _warn_of_dim_dyes(self, dyes: Mapping[str, Fluorophore]) -> None:
        """Warn of dyes whose best channel misses most of their light."""
        for dye in dyes.values():
            warning = bands.dimness(dye, self.microscope.all_channels, two_photon=self.microscope.multiphoton)
            if warning:
                warnings.warn(warning, SimexmWarning, stacklevel=2)

    # ---------------------------------------------------------------- stages by role

    def _find(self, kind: type[S]) -> S | None:
        return next((s for s in self.stages if isinstance(s, kind)), None)

    @property
    def labeller(self) -> Labeller:
        """The labelling stage."""
        return cast(Labeller, self._find(Labeller))

    @property
    def barcodes(self) -> Barcodes | None:
        """The stage that adds rounds of imaging, if any."""
        return self._find(Barcodes)

    @property
    def microscope(self) -> Microscope:
        """The stage that forms the image, its curves read."""
        return cast(Microscope, self._find(Microscope)).resolved(self.curves)

    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Transform:
        """Return the map from tissue to expanded tissue, of all stages together; see `Stage.transform`."""
        return compose(stage.transform(specimen, frame) for stage in self.stages)

    @property
    def detector(self) -> Detector | None:
        """The detector, if any."""
        return self._find(Detector)  # type: ignore[type-abstract]

    @property
    def efficiency(self) -> Efficiency:
        """Quantum efficiency of the detector; without one, 1."""
        return self.detector.curves_read(self.curves).efficiency if self.detector else EVERY_PHOTON

    @property
    def truth(self) -> Truth:
        """The stage that samples the ground truth."""
        return cast(Truth, self._find(Truth))

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions for which the source has masks."""
        return masks_of(self.fields)

    @property
    def fields(self) -> Mapping[str, SourceField]:
        """Fields of the source, as far as they are known without opening it."""
        return self.source.offered()

    def fluorophores(self) -> dict[str, Fluorophore]:
        """Return the dyes of the layers, by name; raises SpecError if one is unknown or its file cannot be read."""
        own = {name: dye.load(name) for name, dye in self.dyes.items()}
        names = [dye for stage in self.stages for dye in stage.emits.values()]
        return {name: find(name, own) for name in names}

    def resolved(self) -> Self:
        """Return the same spec without reference to files of dyes and curves or to the working directory."""
        source = self.source.resolved() if isinstance(self.source, ZarrSource) else self.source
        stages = tuple(stage.resolved(self.curves).fitted(source) for stage in self.stages)
        return self.model_copy(update={"source": source, "dyes": self.fluorophores(), "curves": {}, "stages": stages})

    def with_tile(self, tile: Triple | None) -> Self:
        """Return the same spec with tiles of this shape, pixels z y x; None changes nothing."""
        if tile is None:
            return self
        tile = whole_numbers("the tile", tile)
        if min(tile) < 1:
            raise SpecError(f"a tile of {times(tile)} pixels is empty; give at least 1 along each of z, y, x")
        return self.model_copy(update={"execution": self.execution.model_copy(update={"tile": tile})})

    def with_device(self, device: str | None) -> Self:
        """Return the same spec for this device, `auto`, `gpu` or `cpu`; None changes nothing."""
        if device is None:
            return self
        try:
            execution = Execution.model_validate(self.execution.model_dump() | {"device": device})
        except ValidationError as error:
            raise SpecError(f"--device {device}: {error.errors()[0]['msg']}") from None
        return self.model_copy(update={"execution": execution})

    def crop_box(self, volume: Triple) -> Box:
        """Return the crop of a source of this shape; raises SpecError if it is empty or reaches outside."""
        if self.crop is None:
            return Box.of_shape(volume)
        box = Box.at(self.crop.offset, self.crop.shape)
        if min(self.crop.shape) < 1:
            raise SpecError(f"crop.shape {list(self.crop.shape)} holds no voxel; give at least 1 along each of z, y, x")
        if min(self.crop.offset) < 0 or not Box.of_shape(volume).contains(box):
            raise SpecError(
                f"crop from {list(box.start)} to {list(box.stop)} reaches outside the source, whose shape is {list(volume)}, "
                "where there is nothing to simulate; make offset + shape at most that, z y x"
            )
        return box
