"""What reading a box takes beside the box is told before: whole chunks are decoded, however little of them is wanted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec

SHAPE = (128, 256, 256)  # 64 MiB of uint64

MEASURE = """
import json, sys
from simexm.run.worker import peak_bytes
from simexm.geometry.grid import Box
from simexm.sources.base import ZarrSource

def reset():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak_bytes()

def opened():
    return ZarrSource(path=sys.argv[1], voxel_size_nm=(40, 32, 32)).open()

opened().read(Box.at((0, 0, 0), (1, 1, 1)))  # loads libraries, and fills the cache where the chunk is not too large
source = opened()
box = Box.at((8, 40, 40), tuple(json.loads(sys.argv[2])))
told = source.reading_bytes(box.shape, ())
before = reset()
source.read(box)
print(json.dumps([told, peak_bytes() - before]))
"""

CASES: dict[str, dict[str, Any]] = {
    "one chunk": {"chunks": SHAPE, "shape": (256, 256, 256)},
    "gzip": {"chunks": SHAPE, "compressors": GzipCodec(level=1)},
    "not compressed": {"chunks": SHAPE, "compressors": None},
    "slabs": {"chunks": (16, 256, 256), "shape": (512, 256, 256)},
    "shards of another program": {
        "chunks": (64, 256, 256), "shards": (256, 256, 256), "shape": (256, 256, 256),
        "compressors": BloscCodec(),
    },
    "Zarr 2, big-endian": {"chunks": SHAPE, "dtype": ">u8", "zarr_format": 2},
}  # fmt: skip
QUICK = {"one chunk", "not compressed"}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES])
def test_reading_takes_no_more_than_told_and_not_much_less(name: str, tmp_path: Path) -> None:
    options = {"shape": SHAPE, "dtype": "u8", **CASES[name]}
    array = zarr.create_array(str(tmp_path / "a.zarr"), **options)
    ids = np.add.outer(np.arange(options["shape"][0]) // 9, np.arange(256) // 9)
    array[...] = np.broadcast_to(ids[:, None], options["shape"])
    shape = (100, 64, 64)
    words = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "a.zarr"), json.dumps(shape)]
    told, taken = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    box = 8 * int(np.prod(shape))
    assert 0.6 * told <= taken <= told + box
