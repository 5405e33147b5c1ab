"""The root of a specification: where labels come from, the stages, and what to keep."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from simexm import settings
from simexm.arguments import whole_numbers
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.geometry.grid import Box, Triple
from simexm.geometry.transform import Transform, compose
from simexm.names import FreeText
from simexm.settings import Frozen
from simexm.sources.base import ZarrSource
from simexm.sources.fields import masks_of
from simexm.sources.phantom import Phantom
from simexm.spectra import bands
from simexm.spectra.dyes import Dye
from simexm.spectra.fluorophores import Fluorophore, find
from simexm.stages import AnyStage, Barcodes, Camera, Truth
from simexm.stages.contract import LABELS
from simexm.stages.roles import Labeller, Microscope
from simexm.stages.sample.barcodes import AMPLICONS
from simexm.store.location import usable
from simexm.units import times

MEMBRANE, CYTOSOL = "membrane", "cytosol"

Pixels = Annotated[int, Field(ge=1)]
Keep = Literal["expected", "labelled", "emitters"]


def _source_kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "zarr" if kind is None else str(kind)  # files tell their own kind


Source = Annotated[Annotated[Phantom, Tag("phantom")] | Annotated[ZarrSource, Tag("zarr")], Discriminator(_source_kind)]


class Crop(Frozen):
    """A part of the source.

    Attributes
    ----------
    offset, shape
        First voxel and number of voxels, z y x. Ids around the crop are read to find its membranes, but emit nothing.
    """

    offset: tuple[int, int, int] = (0, 0, 0)
    shape: tuple[int, int, int]


class Execution(Frozen):
    """How the work is cut up; the device, the tile and the block that follow from it are part of what decides the bytes.

    Attributes
    ----------
    device
        `auto`: a GPU where there is one. `gpu`: the same, with a warning where there is none. A run never mixes both.
    require_gpu
        Refuse to run where there is no GPU.
    memory_GiB
        Memory that one worker may use; decides the default tile.
    tile
        Pixels along z, y, x that are computed at once; left out, as large as fits.
    min_blocks
        Blocks that there should be at least, if the image is large enough: no more workers than blocks can be busy, but the
        smaller a block is, the more its halo costs. Left out, 4; 16 where each is still worth five core-seconds.
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
        Path or URL of labels, or a mapping: `{path, dataset, voxel_size_nm, regions}`, or `{kind: phantom, shape, ...}`.
        A relative path begins at the working directory.
    crop
        Part of the source; left out, all of it.
    dyes
        Further dyes by name.
    stages
        What happens, in order.
    keep
        Intermediate results to store as well: `expected` (noise-free image), `labelled` (dyes per pixel and layer),
        `emitters` (every dye, as a table).
    execution
        How the work is cut up.
    """

    name: FreeText = "simulation"
    seed: int = Field(default=0, ge=0, lt=2**63)
    source: Source
    crop: Crop | None = None
    dyes: dict[FreeText, Dye] = Field(default_factory=dict, max_length=1000)
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
            If anything is wrong; the message lists all problems with their place.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise settings.explain(error, cls, name) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file.

        Raises
        ------
        SpecError
            If there is no such file, or anything in it is wrong.
        """
        return cls.from_mapping(settings.read(Path(usable(path))), str(path))

    def to_mapping(self) -> dict[str, Any]:
        """Plain data that `from_mapping` reads; what stands at its default is left out, but for the stages' tags."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        data["stages"] = [
            {"stage": s.model_dump()["stage"], **s.model_dump(mode="json", exclude_defaults=True)} for s in self.stages
        ]
        if isinstance(self.source, Phantom):
            data["source"] = {"kind": "phantom", **data["source"]}
        return data

    def save(self, path: str | Path) -> None:
        """Write a YAML file, or a JSON file where the name ends in .json.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        named = Path(usable(path))
        try:
            named.write_text(settings.dump(self.to_mapping(), named), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}; name another file") from error

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, validated again; raises SpecError where they cannot be."""
        return self.from_mapping({**self.model_dump(), **changes})

    # ---------------------------------------------------------------- checks

    @model_validator(mode="after")
    def _order(self) -> Self:
        written = {LABELS.name}
        for stage in self.stages:
            missing = [q.name for q in stage.inputs if q.name not in written]
            if missing:
                raise ValueError(
                    f"stage {stage.tag!r} reads {' and '.join(missing)}, which no stage before it writes; "
                    "the usual order is regions, labelling, expansion, a microscope, camera, truth"
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
            (Microscope, "expected", "a microscope (confocal, widefield, two_photon, light_sheet)"),
            (Truth, "truth", "truth"),
        ):
            if not any(isinstance(s, role) for s in self.stages):
                raise ValueError(f"no stage writes {name!r}, without which nothing can be made; add {what}")
        makes = written | ({"labelled"} if "emitters" in written else set())
        for name in self.keep:
            if name not in makes:
                raise ValueError(f"keep: {name} cannot be kept, for none of these stages makes it; take it out")
        return self

    @model_validator(mode="after")
    def _regions_known(self) -> Self:
        known = (MEMBRANE, CYTOSOL, *self.masks)
        for layer in self.labeller.named_layers:
            if layer.region not in known:
                raise ValueError(
                    f"layer {layer.name!r} labels the region {layer.region!r}, which does not exist, so it would stay empty; "
                    f"the regions are {', '.join(known)}; give further masks under source.regions"
                )
        for sites in self.barcodes.amplicons if self.barcodes else ():
            if sites.region not in known:
                raise ValueError(
                    f"barcodes: amplicons are to form in the region {sites.region!r}, which does not exist, so there would be "
                    f"none; the regions are {', '.join(known)}; give further masks under source.regions"
                )
        for name in self.truth.regions:
            if name not in known:
                raise ValueError(
                    f"truth.regions names {name!r}, which does not exist; the regions are {', '.join(known)}"
                )
        taken = {AMPLICONS, *(self.barcodes.layer_of_dye.values() if self.barcodes else ())}
        clash = sorted(taken & {layer.name for layer in self.labeller.named_layers}) if self.barcodes else []
        if clash:
            raise ValueError(f"the layer {clash[0]!r} has the name that amplicons go by; give the layer another name")
        layers = ["cells", *(layer.name for layer in self.labeller.named_layers)]
        taken = set(layers) & {f"{layer}_{region}" for layer in layers for region in self.truth.regions}
        if taken:
            raise ValueError(
                f"the layer {min(taken)!r} has the name of a region's label image; give the layer another name"
            )
        for name in self.masks:
            if name in (MEMBRANE, CYTOSOL):
                raise ValueError(
                    f"a mask cannot be named {name!r}, which is found from the labels; give it another name"
                )
        return self

    @model_validator(mode="after")
    def _light(self) -> Self:
        try:
            dyes = self.fluorophores()
            self._letters_told_apart()
            self.microscope.check(dyes, float(self.transform().scale))
            self._peaks_seen(dyes)
        except SpecError as error:
            raise ValueError(str(error)) from None
        return self

    def _letters_told_apart(self) -> None:
        letters, channels = self.barcodes.dyes if self.barcodes else {}, self.microscope.all_channels
        if len(letters) > len(channels):
            raise SpecError(
                f"{len(letters)} letters have as many dyes, but there are {len(channels)} channels, which cannot "
                "tell them apart; give at least one channel for each letter's dye"
            )

    def _peaks_seen(self, dyes: Mapping[str, Fluorophore]) -> None:
        """Warn of a dye whose best channel misses most of its light."""
        for dye in dyes.values():
            told = bands.dimness(dye, self.microscope.all_channels, two_photon=self.microscope.multiphoton)
            if told:
                warnings.warn(told, SimexmWarning, stacklevel=2)

    # ---------------------------------------------------------------- what the stages are

    def _one(self, kind: type[Any]) -> Any:
        return next((s for s in self.stages if isinstance(s, kind)), None)

    @property
    def labeller(self) -> Labeller:
        """The stage that labels."""
        stage: Labeller = self._one(Labeller)
        return stage

    @property
    def barcodes(self) -> Barcodes | None:
        """The stage that makes rounds of imaging, where there is one."""
        stage: Barcodes | None = self._one(Barcodes)
        return stage

    @property
    def microscope(self) -> Microscope:
        """The stage that makes the image."""
        stage: Microscope = self._one(Microscope)
        return stage

    def transform(self, frame: Mapping[str, int] | None = None) -> Transform:
        """From tissue to expanded tissue, by all stages together; see `Stage.transform`."""
        return compose(stage.transform(frame) for stage in self.stages)

    @property
    def camera(self) -> Camera | None:
        """The detector, where there is one."""
        stage: Camera | None = self._one(Camera)
        return stage

    @property
    def truth(self) -> Truth:
        """The stage that samples the truth."""
        stage: Truth = self._one(Truth)
        return stage

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions that the source has masks of."""
        return ("synapse",) if isinstance(self.source, Phantom) else masks_of(self.source.offered())

    def fluorophores(self) -> dict[str, Fluorophore]:
        """The dyes that the layers use, by name.

        Raises
        ------
        SpecError
            If one is unknown, or its file cannot be read.
        """
        own = {name: dye.load(name) for name, dye in self.dyes.items()}
        names = [dye for stage in self.stages for dye in stage.emits.values()]
        return {name: find(name, own) for name in names}

    def resolved(self) -> Self:
        """The same simulation without reference to files of dyes or to the working directory."""
        source = self.source.resolved() if isinstance(self.source, ZarrSource) else self.source
        stages = tuple(s.resolved() if isinstance(s, Barcodes) else s for s in self.stages)
        return self.model_copy(update={"source": source, "dyes": self.fluorophores(), "stages": stages})

    def with_tile(self, tile: Triple | None) -> Self:
        """The same simulation computed in tiles of this shape, pixels z y x; None leaves it as it is."""
        if tile is None:
            return self
        tile = whole_numbers("the tile", tile)
        if min(tile) < 1:
            raise SpecError(f"a tile of {times(tile)} pixels is empty; give at least 1 along each of z, y, x")
        return self.model_copy(update={"execution": self.execution.model_copy(update={"tile": tile})})

    def with_device(self, device: str | None) -> Self:
        """The same simulation computed on this device, `auto`, `gpu` or `cpu`; None leaves it as it is."""
        if device is None:
            return self
        try:
            execution = Execution.model_validate(self.execution.model_dump() | {"device": device})
        except ValidationError as error:
            raise SpecError(f"--device {device}: {error.errors()[0]['msg']}") from None
        return self.model_copy(update={"execution": execution})

    def crop_box(self, volume: Triple) -> Box:
        """The specimen in voxels of a source of this shape.

        Raises
        ------
        SpecError
            If the crop is empty or reaches outside.
        """
        if self.crop is None:
            return Box.of_shape(volume)
        box = Box.at(self.crop.offset, self.crop.shape)
        if min(self.crop.shape) < 1:
            raise SpecError(f"crop.shape {list(self.crop.shape)} holds no voxel; give at least 1 along each of z, y, x")
        if min(self.crop.offset) < 0 or not Box.of_shape(volume).contains(box):
            raise SpecError(
                f"crop from {list(box.start)} to {list(box.stop)} reaches outside the source, whose shape is {list(volume)}, "
                "and there is nothing to simulate there; make offset + shape at most that, z y x"
            )
        return box
