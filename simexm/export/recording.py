"""Write a movie as the folder that the acquisition software of the UCLA Miniscope leaves.

Its layout is that of Miniscope-DAQ-QT-Software (datasaver.cpp): metaData.json of the session, and for each device a folder with
0.avi, 1.avi, ... of 1,000 frames each, timeStamps.csv and its own metaData.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from simexm.export.stack import Head, Plane
from simexm.export.video import open_avi
from simexm.store.atomic_file import atomic_file, atomic_folder
from simexm.version import __version__

FRAMES_PER_FILE = 1000
DEVICE = "Miniscope"
"""Folder of the device; of several channels, with the name of each behind it."""
SESSION = "metaData.json"


@contextmanager
def write_recording(path: Path, head: Head) -> Iterator[Callable[[Plane], None]]:
    """Yield a function that adds the next frame to the folder of a device."""
    number = 0
    with atomic_folder(path) as partial, ExitStack() as stack:
        adding: Callable[[Plane], None] | None = None

        def add(plane: Plane) -> None:
            nonlocal number, adding
            if adding is None or number % FRAMES_PER_FILE == 0:
                stack.close()
                adding = stack.enter_context(open_avi(partial / f"{number // FRAMES_PER_FILE}.avi", head))
            adding(plane)
            number += 1

        yield add
        stack.close()
        (partial / "timeStamps.csv").write_text(time_stamps(head), encoding="ascii")
        (partial / "metaData.json").write_text(json.dumps(device(path.name, head), indent=4) + "\n", encoding="utf-8")


def time_stamps(head: Head) -> str:
    """Return the table of times, ms since the start of the recording, whole as the software writes them."""
    times = head.times_s or tuple(n / 20 for n in range(head.shape[0]))
    rows = [f"{n},{round(1000 * time)},0" for n, time in enumerate(times)]
    return "\n".join(["Frame Number,Time Stamp (ms),Buffer Index", *rows, ""])


def device(name: str, head: Head) -> dict[str, Any]:
    """Return the metadata of the device."""
    rate = {} if head.frame_s is None else {"frameRate": f"{1 / head.frame_s:g}FPS"}
    return {
        "deviceName": name,
        "deviceType": "simulated",
        "deviceID": 0,
        "deviceDirectory": name,
        "framesPerFile": FRAMES_PER_FILE,
        "compression": "FFV1",
        "ROI": {"leftEdge": 0, "topEdge": 0, "width": head.shape[2], "height": head.shape[1]},
        **rate,
        "pixelSizeUm": head.voxel_um[2],
    }


def write_session(path: Path, names: list[str], head: Head) -> None:
    """Write the metadata of the recording."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(session(names, head), indent=4) + "\n", encoding="utf-8")


def session(names: list[str], head: Head) -> dict[str, Any]:
    """Return the metadata of the recording; a simulation has no date, so that the date is that of the epoch."""
    return {
        "researcherName": f"simexm {__version__}",
        "animalName": "simulated",
        "experimentName": head.name,
        "baseDirectory": ".",
        "year": 1970,
        "month": 1,
        "day": 1,
        "hour": 0,
        "minute": 0,
        "second": 0,
        "msec": 0,
        "msecSinceEpoch": 0,
        "miniscopes": names,
        "cameras": [],
    }
