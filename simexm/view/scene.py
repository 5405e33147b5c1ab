"""Images, label images and ground truth of a result, with their positions in tissue, for a viewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError
from simexm.geometry.grid import three
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.run.finish import WINDOW
from simexm.run.status import status
from simexm.sources.base import LabelSource
from simexm.store.metadata import read_group
from simexm.store.pyramid import plan_levels
from simexm.view.run_record import RunRecord, spacing_um, truth_of

Um = tuple[float, float, float]


@dataclass(frozen=True)
class LevelGeometry:
    """One level of a pyramid; lengths are in um of tissue before expansion, z, y, x."""

    path: str  # of its array, below its group
    scale_um: Um  # size of an element
    corner_um: Um  # of the first element


@dataclass(frozen=True)
class ChannelDisplay:
    """Display settings of a channel."""

    name: str
    color: str  # RRGGBB
    window: tuple[float, float]  # counts shown as black and as full colour
    largest: float  # largest possible count


@dataclass(frozen=True)
class SceneImage:
    """One image or label image."""

    group: str  # below the result's root; "" is the root
    name: str
    steps: Sequence[LevelGeometry]  # levels, finest first
    tints: Sequence[ChannelDisplay]  # channels; none for labels
    main: bool = False  # whether it is visible at first


@dataclass(frozen=True)
class Scene:
    """Everything that a viewer shows of one result."""

    result: Result
    pictures: Sequence[SceneImage]  # images first, then label images
    shape: tuple[int, int, int]  # of the finest level
    truth: LabelSource | None  # the source's labels, if they can be opened
    lacking: Sequence[str]  # a sentence for each missing part, with a remedy

    @classmethod
    def of(cls, result: Result) -> Scene:
        """Find the parts of a result; raises OutputError if the run has only begun, or its plan is unknown."""
        run = RunRecord.of(result)
        if result.kind != SIMULATION:
            result.require_complete()
        if result.complete:
            pictures, lacking = [_finished(result, g) for g in _groups(result)], []
        elif run is None:
            raise OutputError(
                f"{result.path} is incomplete and {result.place.run / 'plan.json'} cannot be read, so its grid is not known; "
                "type the `simexm run` command again to continue it"
            )
        else:
            pictures, lacking = list(_unfinished(result, run)), [_progress(result)]
        truth, why = truth_of(result, run)
        if truth is None and result.kind == SIMULATION:
            lacking.append(f"the ground truth cannot be opened and is left out: {why}")
        pictures = sorted(pictures, key=lambda p: not p.tints)
        if not pictures:
            raise OutputError(f"{result.path} holds neither images nor labels; `simexm info` prints its scores")
        shape = result.array(0, "" if pictures[0].main else pictures[0].group).shape[-3:]
        return cls(result, pictures, three(shape), truth, lacking)


def _groups(result: Result) -> list[str]:
    """Return the groups of all images and label images of a finished result."""
    frames, outputs = result.provenance.get("frames", ()), result.provenance.get("outputs")
    if outputs is None:
        outputs = [f"labels/{name}" for name in result.label_names]
    main = frames or ([""] if "ome" in result.attributes else [])
    return [*dict.fromkeys([*main, *outputs])]


def _name(result: Result, group: str) -> str:
    """Name a group for people: `round 2`; `labels/cells` without its frame; else the group."""
    head, _, rest = group.partition("/")
    if head in result.provenance.get("frames", ()):
        return rest if rest.startswith("labels/") else " ".join([*head.replace("_0", "_").split("_"), rest]).strip()
    return group


def _is_main(result: Result, group: str) -> bool:
    return group == next(iter(result.provenance.get("frames", ())), "")


def _finished(result: Result, group: str) -> SceneImage:
    ome = read_group(result.path / group)["ome"]
    steps = []
    for dataset in ome["multiscales"][0]["datasets"]:
        transforms = {t["type"]: t[t["type"]][-3:] for t in dataset["coordinateTransformations"]}
        scale = transforms["scale"]
        centre = transforms.get("translation", [s / 2 for s in scale])
        corner = three(c - s / 2 for c, s in zip(centre, scale, strict=True))
        steps.append(LevelGeometry(dataset["path"], three(scale), corner))
    tints = [
        ChannelDisplay(c["label"], c["color"], (c["window"]["start"], c["window"]["end"]), c["window"]["max"])
        for c in ome.get("omero", {}).get("channels", ())
    ]
    return SceneImage(group, _name(result, group), steps, tints, _is_main(result, group))


def _unfinished(result: Result, run: RunRecord) -> Iterator[SceneImage]:
    """Return the planned images, with the levels that blocks write; the coarse ones come last."""
    geometry = run.plan.geometry
    levels = plan_levels(geometry.shape, geometry.pixel_tissue_nm)[: run.record["blocks"]["levels"]]
    corner = spacing_um(geometry.image_origin_nm)
    steps = [LevelGeometry(str(n), spacing_um(level.spacing), corner) for n, level in enumerate(levels)]
    for output in run.record["outputs"]:
        group = "" if output["path"] == "." else output["path"]
        if not (result.path / group / "0" / "zarr.json").is_file():
            raise OutputError(f"{result.path} has only begun: its arrays do not exist yet; try again in a moment")
        tints = [
            ChannelDisplay(name, run.color(name), *_sampled(result.path / group / steps[-1].path, c))
            for c, name in enumerate(output["channels"])
        ]
        yield SceneImage(group, _name(result, group), steps, tints, _is_main(result, group))


def _sampled(array: Path, channel: int) -> tuple[tuple[float, float], float]:
    """Return display window and largest value, from the first shard found."""
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
    running = found.driver and found.driver.alive
    driver = "it is running" if running else "type the `simexm run` command again to continue it"
    return (
        f"{result.path} is incomplete ({driver}): {found.done} of {found.blocks} blocks are done, the others are black, and "
        "contrast is a guess; reload the page to see more of it"
    )
