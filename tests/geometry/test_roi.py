"""What the text of --roi chooses is what the same slices choose of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simexm.errors import SpecError
from simexm.geometry.roi import box_of

SHAPE = (4, 5, 6)


@pytest.mark.parametrize(
    ("text", "slices"),
    [
        ("0:4,0:5,0:6", np.s_[:, :, :]),
        (" 1:3, :2 ,5: ", np.s_[1:3, :2, 5:]),
        (":,4:5,:", np.s_[:, 4:5, :]),
        (None, np.s_[:, :, :]),
    ],
)
def test_a_region_is_those_voxels(text: str | None, slices: tuple[slice, ...]) -> None:
    array = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for roi in (text, slices):
        np.testing.assert_array_equal(array[box_of(roi, SHAPE, "a").slices], array[slices])


@pytest.mark.parametrize(
    "roi",
    [
        "", "1:2", "1:2,3:4", "1:2,:,:,:", "1-2,:,:", "a:b,:,:", "1:2:1,:,:", "-1:2,:,:", "1,2,3", "1:²,:,:", 5, [1, 2, 3], b"1:2,:,:",
        np.s_[::2, :, :], np.s_[0.5:2, :, :], np.s_[True:2, :, :], (slice(1), slice(2)), {"z": 1},
        "2:2,:,:", "3:2,:,:", ":5,:,:", "4:,:,:", np.s_[-1:, :, :], "0:999999999999999999999,:,:",
    ],
)  # fmt: skip
def test_what_is_no_region_of_the_volume_is_refused(roi: Any) -> None:
    with pytest.raises(SpecError, match="--roi"):
        box_of(roi, SHAPE, "a")
