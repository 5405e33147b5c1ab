"""In an object store, too, files among chunks that no chunk key explains are named."""

from __future__ import annotations

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

from simexm.errors import SourceError
from simexm.geometry.grid import Box
from simexm.sources.base import ZarrSource
from simexm.store.remote import Remote


def test_a_key_that_is_no_chunk_is_named(bucket: Remote) -> None:
    a = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    store = FsspecStore.from_url(f"{bucket}/a", storage_options={"use_listings_cache": False})
    zarr.create_array(store, shape=a.T.shape, dtype=a.dtype, chunks=(5, 4, 1), dimension_names=["x", "y", "z"])[...] = (
        a.T
    )
    source = ZarrSource(path=f"{bucket}/a", voxel_size_nm=(40, 8, 4))
    opened = source.open()
    np.testing.assert_array_equal(opened.read(Box.of_shape(opened.shape)), a)
    fsspec.filesystem("s3").mv(f"{bucket}/a/c/0/0/2", f"{bucket}/a/c/0/0/2.gz")
    with pytest.raises(SourceError, match=r"c/0/0/2\.gz"):
        source.open()
