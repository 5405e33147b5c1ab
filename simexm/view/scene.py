"""What of a result can be looked at, and where it lies in tissue: images, label images, and the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.run.finish import WINDOW
from simexm.run.status import status
from simexm.sources.base import LabelSource
from simexm.store.metadata import read_group
from simexm.store.pyramid import plan_levels
from simexm.view.making import Making, spacing_um, truth_of

Um = tuple[float, float, float]


@dataclass(frozen=True)
class Step:
    """One level of a pyramid.

    Attributes
    ----------
    path
        Of its array, below its group.
    scale_um, corner_um
        Size of an element, and where the first one begins; z, y, x, um of tissue before expansion.
    """

    path: str
    scale_um: Um
    corner_um: Um


@dataclass(frozen=True)
class Tint:
    """How a channel is shown: name, RRGGBB, the counts that are black and bright, and the largest that there may be."""

    name: str
    color: str
    window: tuple[float, float]
    largest: float


@dataclass(frozen=True)
class Picture:
    """One image or label image.

    Attributes
    ----------
    group
        Below the result's root; "" is the root.
    name
        For people.
    steps
        Its levels, finest first.
    tints
        Its channels; none where it holds labels.
    main
        Whether it is shown at first.
    """

    group: str
    name: str
    steps: Sequence[Step]
    tints: Sequence[Tint]
    main: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything of one result.

    Attributes
    ----------
    result
        The result.
    pictures
        Images first, then label images.
    shape
        Planes, rows, columns of the finest level.
    truth
        The labels that it was made from; None where they cannot be reached.
    lacking
        What is not there, and what to do about it, one sentence each.
    """

    result: Result
    pictures: Sequence[Picture]
    shape: tuple[int, int, int]
    truth: LabelSource | None
    lacking: Sequence[str]

    @classmethod
    def of(cls, result: Result) -> Scene:
        """Look at what is there.

        Raises
        ------
        OutputError
            If the run has only begun, or nobody knows what it is to write.
        """
        making = Making.of(result)
        if result.complete:
            pictures, lacking = [_finished(result, g) for g in _groups(result)], []
        elif result.kind != SIMULATION:
            raise OutputError(f"{result.path} is incomplete; type the `simexm {result.kind}` command again to go on")
        elif making is None:
            raise OutputError(
                f"{result.path} is incomplete and {result.place.run / 'plan.json'} cannot be read, so its grid is not known; "
                "type the `simexm run` command again to go on"
            )
        else:
            pictures, lacking = list(_unfinished(result, making)), [_progress(result)]
        truth, why = truth_of(result, making)
        if truth is None and result.kind == SIMULATION:
            lacking.append(f"the ground truth cannot be reached and is left out: {why}")
        pictures = sorted(pictures, key=lambda p: not p.tints)
        if not pictures:
            raise OutputError(f"{result.path} holds neither images nor labels; `simexm info` prints its scores")
        shape = result.array(0, "" if pictures[0].main else pictures[0].group).shape[-3:]
        return cls(result, pictures, (shape[0], shape[1], shape[2]), truth, lacking)


def _groups(result: Result) -> list[str]:
    """Of everything that a finished result holds."""
    frames, outputs = result.provenance.get("frames", ()), result.provenance.get("outputs")
    if outputs is None:
        outputs = [f"labels/{name}" for name in result.label_names]
    main = frames or ([""] if "ome" in result.attributes else [])
    return [*dict.fromkeys([*main, *outputs])]


def _name(result: Result, group: str) -> str:
    """`round 2`, `labels/cells` without the frame that holds it, or the result's own quantity."""
    head, _, rest = group.partition("/")
    if head in result.provenance.get("frames", ()):
        return rest if rest.startswith("labels/") else " ".join([*head.replace("_0", "_").split("_"), rest]).strip()
    return group


def _is_main(result: Result, group: str) -> bool:
    return group == next(iter(result.provenance.get("frames", ())), "")


def _finished(result: Result, group: str) -> Picture:
    ome = read_group(result.path / group)["ome"]
    steps = []
    for dataset in ome["multiscales"][0]["datasets"]:
        told = {t["type"]: t[t["type"]][-3:] for t in dataset["coordinateTransformations"]}
        scale, centre = told["scale"], told.get("translation", [s / 2 for s in told["scale"]])
        z, y, x = (c - s / 2 for c, s in zip(centre, scale, strict=True))
        steps.append(Step(dataset["path"], (scale[0], scale[1], scale[2]), (z, y, x)))
    tints = [
        Tint(c["label"], c["color"], (c["window"]["start"], c["window"]["end"]), c["window"]["max"])
        for c in ome.get("omero", {}).get("channels", ())
    ]
    return Picture(group, _name(result, group), steps, tints, _is_main(result, group))


def _unfinished(result: Result, making: Making) -> Iterator[Picture]:
    """What the plan says will be there; of levels those that blocks write, for the coarse ones come last."""
    geometry = making.plan.geometry
    levels = plan_levels(geometry.shape, geometry.pixel_tissue_nm)[: making.record["blocks"]["levels"]]
    corner = spacing_um(geometry.image_origin_nm)
    steps = [Step(str(n), spacing_um(level.spacing), corner) for n, level in enumerate(levels)]
    for output in making.record["outputs"]:
        group = "" if output["path"] == "." else output["path"]
        if not (result.path / group / "0" / "zarr.json").is_file():
            raise OutputError(f"{result.path} has only begun: its arrays are not there yet; look again in a moment")
        tints = [
            Tint(name, making.color(name), *_sampled(result.path / group / steps[-1].path, c))
            for c, name in enumerate(output["channels"])
        ]
        yield Picture(group, _name(result, group), steps, tints, _is_main(result, group))


def _sampled(array: Path, channel: int) -> tuple[tuple[float, float], float]:
    """Display window and largest value, from the first shard that there is."""
    import zarr

    folder = array / "c" / str(channel)
    while folder.is_dir():
        first = min(folder.iterdir(), default=None)
        if first is None:
            break
        folder = first
    if not folder.is_file():
        return (0.0, 1.0), 1.0
    stored: Any = zarr.open_array(array, mode="r")
    position = [int(p) for p in folder.relative_to(array / "c").parts[1:]]
    shard = (stored.shards or stored.chunks)[-3:]
    where = tuple(slice(p * s, (p + 1) * s) for p, s in zip(position, shard, strict=True))
    data = np.asarray(stored[(channel, *where)])
    low, high = (float(q) for q in np.quantile(data, WINDOW))
    return (low, max(high, low + 1e-9)), float(max(data.max(), high))


def _progress(result: Result) -> str:
    found = status(result.path)
    driver = "it is running" if found.driver and found.driver.alive else "type the `simexm run` command again to go on"
    return (
        f"{result.path} is incomplete ({driver}): {found.done} of {found.blocks} blocks are done, the others are black, and "
        "contrast is a guess; reload the page to see more of it"
    )
