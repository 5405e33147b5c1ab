"""Fields that ingest writes beside the labels: masks, classes, grey values and ids of other objects."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simexm.arguments import text
from simexm.errors import SimexmWarning, SourceError, SpecError
from simexm.geometry.grid import Box, Spacing
from simexm.ingestion.bands import Written
from simexm.names import is_region
from simexm.sources.colours import ColorIds
from simexm.sources.fields import Kind
from simexm.sources.opening import open_stack
from simexm.sources.stack import Numbers, Stack, cell_ids, grey, mask, times_of
from simexm.sources.times import refuse_other_times
from simexm.store.location import usable
from simexm.units import times

_TAKEN = frozenset({"labels", "membrane", "cytosol", "everywhere"})


@dataclass(frozen=True, slots=True)
class FieldToWrite:
    """A field to write beside the labels."""

    kind: Kind
    stack: Stack

    def numbers(self, stack: Stack, crop: Box) -> Numbers:
        """Return the numbers to write of a crop of its stack at a time point."""
        return {"mask": mask, "grey": grey}.get(self.kind, cell_ids)(stack, crop)


def named_regions(regions: Any) -> dict[str, tuple[Kind, str]]:
    """Check the masks that a caller names; return kind and path by name."""
    if not isinstance(regions, Mapping | None):
        raise SpecError(
            f"regions is {reprlib.repr(regions)}; give a mapping of names to paths, such as {{'synapse': 'mask.tif'}}"
        )
    return {text("the name of a region", name): ("mask", usable(path)) for name, path in (regions or {}).items()}


def named_fields(regions: Any, fields: Any) -> dict[str, tuple[Kind, str]]:
    """Check the fields that a caller names; return kind and path by name."""
    if not isinstance(fields, Mapping | None):
        raise SpecError(
            f"fields is {reprlib.repr(fields)}; give a mapping of names to kinds and paths, such as {{'em': ('grey', 'em.tif')}}"
        )
    found = {}
    for name, field in (fields or {}).items():
        kind, path = field if isinstance(field, tuple | list) and len(field) == 2 else (field, "")
        if kind not in ("ids", "classes", "grey"):
            raise SpecError(
                f"field {name!r} is of kind {reprlib.repr(kind)}; give ids, classes or grey and a path. Type --field "
                "NAME=KIND:PATH, such as --field em=grey:em.tif; masks are given by --region"
            )
        if name in (regions or {}):
            raise SpecError(f"there is a region and a field {name!r}; give one of them another name")
        found[text("the name of a field", name)] = kind, usable(path)
    return found


def open_field(
    name: str, kind: Kind, path: str, labels: Stack, color_ids: ColorIds | None, given: Spacing | None
) -> FieldToWrite:
    """Open a field to write; raises SourceError if it is on another grid than the labels."""
    what = f"region {name!r}" if kind == "mask" else f"field {name!r}"
    if not is_region(name) or name in _TAKEN:
        option = f"--region NAME=PATH, such as --region synapse={path}"
        raise SpecError(
            f"{what}: its name begins with a letter, continues with letters, digits, '_' and '-', and differs from "
            f"{', '.join(sorted(_TAKEN))}. Type {option if kind == 'mask' else f'--field NAME={kind}:PATH'}"
        )
    try:
        found = open_stack(path, color_ids=None if kind == "grey" else color_ids)
    except SourceError as error:
        raise type(error)(f"{what}: {error}") from error
    if found.shape != labels.shape:
        raise SourceError(
            f"{what}: {found.where} has the shape {times(found.shape)} (z y x), and the labels {labels.where} have "
            f"{times(labels.shape)}; it needs one voxel for each of theirs. Resample or cut it to the labels' grid."
        )
    refuse_other_times(f"{what}: {found.where}", times_of(found), labels.where, times_of(labels))
    if given is None and not _on_one_grid(found, labels):
        raise SourceError(
            f"{what}: {found.where} has voxels of {times(found.voxel_size_nm or ())} nm, and the labels {labels.where} of "
            f"{times(labels.voxel_size_nm or ())} nm, so they would not match. Resample it onto the labels' grid."
        )
    return FieldToWrite(kind, found)


def _on_one_grid(mask: Stack, labels: Stack) -> bool:
    """Whether voxels of two volumes of one shape match within half a voxel, as far as their metadata say.

    Formats round sizes: some hold them in 32 bits, or as the number of pixels in a unit.
    """
    if mask.voxel_size_nm is None or labels.voxel_size_nm is None:
        return True
    pairs = zip(mask.voxel_size_nm, labels.voxel_size_nm, labels.shape, strict=True)
    return all(2 * abs(a - b) * n < b for a, b, n in pairs)


def warn_of_mask(name: str, found: Stack, written: Written) -> None:
    """Warn of a mask that is 0 everywhere, or nowhere."""
    if written.largest == 0 or written.smallest > 0:
        full = "0 nowhere, so it would be the complete volume"
        what = "0 everywhere, so it would stay empty" if written.largest == 0 else full
        warnings.warn(
            f"region {name!r}: {found.where} is {what}. Check that it is the mask, and that 0 stands for outside",
            SimexmWarning,
            stacklevel=3,
        )
