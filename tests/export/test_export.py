"""What stands in exported files is what the result holds, in bounded memory, and no file is ever lost or half there."""

from __future__ import annotations

import json
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from simexm.errors import OutputError, SimexmWarning
from simexm.export import labels as export_labels
from simexm.export import stack, tiff
from simexm.export.export import export
from simexm.export.stack import Channel, Head
from simexm.result.result import Result
from tests.export.conftest import COLORS, IDS, SCALE_UM, cells, counts, make_result


def by_maximum(channel: NDArray[Any]) -> NDArray[np.uint8]:
    """The 2017 program's scaling."""
    return np.asarray(np.rint(channel.astype(np.float64) * 255 / channel.max()), np.uint8)


def by_window(channel: NDArray[Any], c: int) -> NDArray[np.uint8]:
    """100 is black, 300 + 50 c full."""
    return np.rint(np.clip((channel.astype(np.float64) - 100) / (200 + 50 * c), 0, 1) * 255).astype(np.uint8)


def in_colors(planes: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Channels added in their colours, (..., 3)."""
    rgb = [np.array([int(c[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for c in COLORS]
    return np.minimum(sum(p[..., None].astype(np.float64) * rgb[c] for c, p in enumerate(planes)), 255)


def names(folder: Path) -> set[str]:
    """All files below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def frames(path: Path) -> NDArray[Any]:
    """Planes of a GIF, (z, rows, columns, 3)."""
    with Image.open(path) as gif:
        found = []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            found.append(np.asarray(gif.convert("RGB")))
    return np.stack(found)


def pictures(folder: Path) -> NDArray[Any]:
    """Planes of a folder of PNGs, in the order of their names."""
    return np.stack([np.asarray(Image.open(p)) for p in sorted(folder.iterdir())])


# ------------------------------------------------------------------- TIFF


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "float32"])
@pytest.mark.parametrize("level", [0, 1])
def test_tiff_holds_the_values_and_the_voxel_size(tmp_path: Path, dtype: str, level: int) -> None:
    image = counts(dtype=dtype)
    written = export(make_result(tmp_path / "a.zarr", image), tmp_path / "out", "tiff", level=level)
    assert [p.name for p in written] == ["green.tiff", "red.tiff"]
    for c, path in enumerate(written):
        with tifffile.TiffFile(path) as tif:
            found = tif.asarray()
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, image[c] if level == 0 else image[c, ::2, ::2, ::2])
            told: dict[str, Any] = tif.imagej_metadata or {}
            assert (told["unit"], told["spacing"]) == ("micron", SCALE_UM[0] * 2**level)
            assert (told["min"], told["max"]) == (100, 300 + 50 * c)
            for tag, size in (("YResolution", SCALE_UM[1]), ("XResolution", SCALE_UM[2])):
                above, below = tif.pages.first.tags[tag].value
                assert below / above == pytest.approx(size * 2**level, rel=1e-9)
            offsets = [page.dataoffsets[0] for page in tif.pages]
            assert set(np.diff(offsets)) == {found[0].nbytes}, "ImageJ reads planes one after the other"


@pytest.mark.parametrize(("channels", "files"), [(1, 1), (2, 1), (3, 1), (4, 2)])
def test_merged_tiff_holds_three_channels_a_stack(tmp_path: Path, channels: int, files: int) -> None:
    image = counts(channels)
    result = make_result(tmp_path / "a.zarr", image)
    for eight_bit in (False, True):
        written = export(result, tmp_path / f"out{eight_bit}", "tiff", channels="merged", eight_bit=eight_bit)
        assert len(written) == files
        found = np.concatenate([np.moveaxis(tifffile.imread(p), -1, 0) for p in written])
        wanted = np.zeros((3 * files, *image.shape[1:]), np.uint8)
        for c in range(channels):
            wanted[c] = by_maximum(image[c]) if eight_bit else by_window(image[c], c)
        np.testing.assert_array_equal(found, wanted)


def test_8bit_scales_each_channel_by_its_maximum(small: Result, tmp_path: Path) -> None:
    for form in ("tiff", "ome-tiff"):
        for c, path in enumerate(export(small, tmp_path / form, form, eight_bit=True)):
            np.testing.assert_array_equal(tifffile.imread(path), by_maximum(counts()[c]))
    dark = make_result(tmp_path / "dark.zarr", np.zeros((1, 3, 9, 9), np.uint16))
    assert not tifffile.imread(export(dark, tmp_path / "dark", "tiff", eight_bit=True)[0]).any()


@pytest.mark.parametrize(("planes", "big"), [(31_000, False), (32_760, True)])
def test_bigtiff_where_4_gb_may_be_passed(planes: int, big: bool) -> None:
    channel = Channel("a", "FFFFFF", (0, 1))
    head = Head("a", "", (planes, 256, 256), np.dtype(np.uint16), (1, 1, 1), 1, (channel,))
    assert tiff.needs_bigtiff(head) is big


def test_bigtiff_is_written_and_read(small: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "CLASSIC_LIMIT", 1 << 10)
    for form in ("tiff", "ome-tiff"):
        path = export(small, tmp_path / form, form)[0]
        with tifffile.TiffFile(path) as tif:
            assert tif.is_bigtiff
            np.testing.assert_array_equal(tif.asarray(), counts()[0])


# --------------------------------------------------------------- OME-TIFF


def test_ome_tiff_holds_channels_colours_and_sizes(small: Result, tmp_path: Path) -> None:
    (path,) = export(small, tmp_path / "out", "ome-tiff", channels="merged", level=1)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "CZYX"
        np.testing.assert_array_equal(tif.asarray(), counts()[:, ::2, ::2, ::2])
        xml = str(tif.ome_metadata)
    pixels: Any = tifffile.xml2dict(xml)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == pytest.approx([2 * s for s in SCALE_UM])
    assert [c["Name"] for c in pixels["Channel"]] == ["green", "red"]
    for color, channel in zip(COLORS, pixels["Channel"], strict=False):
        assert -(2**31) <= channel["Color"] < 2**31
        assert f"{channel['Color'] % 2**32:08X}" == f"{color}FF"
    assert "häuser &amp; &lt;co&gt;" in xml
    assert f'<M K="ExpandedSizeZ_um">{2 * SCALE_UM[0] * 4!r}</M>' in xml


def test_ome_xml_is_valid(small: Result, tmp_path: Path) -> None:
    ome_types = pytest.importorskip("ome_types")
    written = [
        *export(small, tmp_path / "a", "ome-tiff", channels="merged", labels="merged"),
        *export(small, tmp_path / "b", "ome-tiff"),
    ]
    assert len(written) == 5
    for path in written:
        found = ome_types.from_tiff(path).images[0]
        assert found.pixels.physical_size_x_unit.value == "µm"
    assert found.pixels.channels[0].color.as_rgb_tuple() == (255, 11, 0)


def test_the_same_export_has_the_same_bytes(small: Result, tmp_path: Path) -> None:
    for form in ("tiff", "ome-tiff", "gif"):
        a, b = (export(small, tmp_path / n / form, form, channels="merged")[0].read_bytes() for n in "ab")
        assert a == b


# ----------------------------------------------------------- GIF and PNG


@pytest.mark.parametrize("eight_bit", [False, True])
def test_gif_and_png_are_shown_by_window_or_maximum(small: Result, tmp_path: Path, eight_bit: bool) -> None:
    image = counts()
    wanted = [by_maximum(a) if eight_bit else by_window(a, c) for c, a in enumerate(image)]
    for c, path in enumerate(export(small, tmp_path / "gif", "gif", eight_bit=eight_bit)):
        np.testing.assert_array_equal(frames(path), np.repeat(wanted[c][..., None], 3, axis=-1))
    for c, path in enumerate(export(small, tmp_path / "png", "png", eight_bit=eight_bit)):
        found = pictures(path)
        np.testing.assert_array_equal(found, wanted[c] if eight_bit else image[c])
        assert [p.name for p in sorted(path.iterdir())][9:] == ["image_09.png", "image_10.png"]
    colors = in_colors(wanted)
    (merged,) = export(small, tmp_path / "merged", "png", channels="merged", eight_bit=eight_bit)
    np.testing.assert_allclose(pictures(merged), colors, atol=1)
    (merged,) = export(small, tmp_path / "merged", "gif", channels="merged", eight_bit=eight_bit)
    assert np.abs(frames(merged) - colors).mean() < 4, "256 colours a frame"


def test_a_gif_goes_on_for_ever_and_may_be_one_plane(tmp_path: Path) -> None:
    (path,) = export(make_result(tmp_path / "a.zarr", counts(1)[:, :1]), tmp_path, "gif")
    assert frames(path).shape == (1, 21, 26, 3)
    with Image.open(path) as gif:
        assert (gif.info["loop"], gif.info["duration"]) == (0, 100)


# ----------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("count", "dtype", "warns"),
    [(1, "uint8", None), (2, "uint16", None), (3, "uint32", None), (4, "uint64", "takes 64 bits")],
)
def test_labels_keep_their_ids_in_the_smallest_type(
    tmp_path: Path, count: int, dtype: str, warns: str | None, recwarn: pytest.WarningsRecorder
) -> None:
    ids = cells(IDS[:count])
    result = make_result(tmp_path / "a.zarr", counts(1), {"cells": ids})
    if warns:
        with pytest.warns(SimexmWarning, match=warns):
            export(result, tmp_path / "out", "tiff", labels="merged")
    else:
        export(result, tmp_path / "out", "tiff", labels="merged")
    assert len(recwarn) == 0
    found = tifffile.imread(tmp_path / "out" / "labels" / "cells.tiff")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, ids)


def test_ids_that_fiji_cannot_tell_apart_are_told_once(tmp_path: Path) -> None:
    ids = cells(np.array([2**24 + 1], np.uint64))
    result = make_result(tmp_path / "a.zarr", counts(1), {"cells": ids, "some": ids})
    with pytest.warns(SimexmWarning, match="16777217.*16777216.*Fiji") as told:
        export(result, tmp_path / "out", "ome-tiff", labels="merged")
    assert len(told) == 1


@pytest.mark.parametrize("batch", [1, 2, 128])
def test_split_labels_add_up_to_the_merged_ones(
    small: Result, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_labels, "OPEN_FILES", batch)
    for form in ("tiff", "ome-tiff"):
        out = tmp_path / form
        export(small, out, form, labels="split")
        suffix = ".tiff" if form == "tiff" else ".ome.tiff"
        assert names(out / "labels") == {
            *(f"cells/{i}{suffix}" for i in IDS[:3]), *(f"some/{i}{suffix}" for i in IDS[[0, 2]])
        }  # fmt: skip
        for i in IDS[:3]:
            ids = cells(IDS[:3])
            np.testing.assert_array_equal(
                tifffile.imread(out / "labels" / "cells" / f"{i}{suffix}"), np.where(ids == i, i, 0)
            )


def test_labels_as_pictures(tmp_path: Path) -> None:
    ids = cells(IDS[:2])
    result = make_result(tmp_path / "a.zarr", counts(1), {"cells": ids})
    export(result, tmp_path / "out", "png", labels="merged")
    np.testing.assert_array_equal(pictures(tmp_path / "out" / "labels" / "cells"), ids)
    export(result, tmp_path / "split", "png", labels="split")
    np.testing.assert_array_equal(
        pictures(tmp_path / "split" / "labels" / "cells" / "300"), np.where(ids == 300, ids, 0)
    )


@pytest.mark.parametrize(("form", "count"), [("gif", 2), ("png", 3), ("ome-tiff", 4)])
def test_ids_that_do_not_fit_are_refused_before_writing(tmp_path: Path, form: str, count: int) -> None:
    result = make_result(tmp_path / "a.zarr", counts(1), {"cells": cells(IDS[:count])})
    for arranged in ("merged", "split"):
        with pytest.raises(OutputError, match=rf"{IDS[count - 1]}.*Type --format (ome-)?tiff"):
            export(result, tmp_path / "out", form, labels=arranged)
    assert not (tmp_path / "out").exists()


def test_an_empty_label_image_is_told(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", counts(1), {"cells": cells(IDS[:0])})
    with pytest.warns(SimexmWarning, match="labels/cells holds no cell"):
        export(result, tmp_path / "out", "tiff", labels="split")
    assert names(tmp_path / "out") == {"green.tiff"}


# ------------------------------------------------------------ bounded memory


@pytest.mark.parametrize(
    ("form", "how"), [("tiff", {}), ("ome-tiff", {"channels": "merged"}), ("tiff", {"eight_bit": True, "channels": "merged"})]
)  # fmt: skip
def test_memory_does_not_grow_with_the_volume(tmp_path: Path, form: str, how: dict[str, Any]) -> None:
    """32 planes of 128 KiB a slab: 4 MiB are read at once, 24 and 96 MiB in all."""
    peaks = []
    for planes in (96, 384):
        result = make_result(tmp_path / f"{planes}.zarr", ((2, planes, 256, 256), "uint16"), chunk=16)
        tracemalloc.start()
        export(result, tmp_path / f"out{planes}", form, **how)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 30e6
    assert peaks[1] < 1.3 * peaks[0] + 1e6


def test_slabs_fit_the_budget_and_the_chunks(tmp_path: Path) -> None:
    array = make_result(tmp_path / "a.zarr", ((1, 64, 100, 100), "uint16"), chunk=4).array()
    plane = 20_000
    for budget, depth in ((1, 1), (3 * plane, 3), (4 * plane, 4), (7 * plane, 4), (8 * plane, 8), (1 << 30, 8)):
        assert stack.slab_depth(array, budget, 2) == depth


def test_slabs_change_no_plane(small: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    for budget in (1, 2500, 1 << 28):
        monkeypatch.setattr(stack, "SLAB_BYTES", budget)
        np.testing.assert_array_equal(np.stack(list(stack.read_planes(small.array(), 1))), counts()[1])


# --------------------------------------------------- whole files, and refusals


@pytest.mark.parametrize("form", ["tiff", "ome-tiff", "gif", "png"])
def test_nothing_is_overwritten_unasked(small: Result, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    written = export(small, out, form)
    (out / "notes.txt").write_text("mine")
    before = {n: (out / n).read_bytes() for n in names(out)}
    with pytest.raises(OutputError, match=r"exists and would be lost.*--overwrite"):
        export(small, out, form, eight_bit=True)
    assert {n: (out / n).read_bytes() for n in names(out)} == before
    export(small, out, form, eight_bit=True, overwrite=True)
    assert names(out) == set(before), "no partial file is left"
    changed = {n for n in before if (out / n).read_bytes() != before[n]}
    assert changed == set(before) - {"notes.txt"}
    assert all(p.exists() for p in written)


def test_what_no_export_wrote_is_never_replaced(small: Result, tmp_path: Path) -> None:
    (tmp_path / "a" / "green.tiff").mkdir(parents=True)
    (tmp_path / "b" / "green").mkdir(parents=True)
    (tmp_path / "b" / "green" / "thesis.txt").write_text("mine")
    for folder, form in (("a", "tiff"), ("b", "png")):
        with pytest.raises(OutputError, match="is not replaced"):
            export(small, tmp_path / folder, form, overwrite=True)
    assert names(tmp_path / "b") == {"green/thesis.txt"}
    assert names(tmp_path / "a") == set()


def test_a_file_that_another_is_writing_is_left_alone(small: Result, tmp_path: Path) -> None:
    (tmp_path / "red.tiff.partial").write_text("theirs")
    with pytest.raises(OutputError, match=r"rm -r .*red.tiff.partial"):
        export(small, tmp_path, "tiff", overwrite=True)
    assert (tmp_path / "red.tiff.partial").read_text() == "theirs"
    assert not (tmp_path / "green.tiff").exists()


@pytest.mark.parametrize("form", ["tiff", "ome-tiff", "gif", "png"])
def test_a_disk_that_is_full_leaves_no_partial_file(tmp_path: Path, form: str) -> None:
    """A limit on the size of files stands for it."""
    noise = np.random.default_rng(1).integers(0, 60000, (2, 9, 64, 64), dtype=np.uint16)
    result = make_result(tmp_path / "a.zarr", noise)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot be written: .*Free some space") as raised:
            export(result, tmp_path / "out", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert raised.value.exit_code == 1
    assert list((tmp_path / "out").rglob("*")) == []


def test_damaged_pixels_are_told(small: Result, tmp_path: Path) -> None:
    shard = next(p for p in sorted((small.path / "0" / "c" / "1").rglob("*")) if p.is_file())
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(OutputError, match=r"cannot be read at planes 0 to 4: .*simexm verify"):
        export(small, tmp_path / "out", "tiff")
    assert names(tmp_path / "out") == {"green.tiff"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"format": "bmp"}, "format is 'bmp'.*tiff, ome-tiff, gif, png"),
        ({"channels": "both"}, "channels is 'both'.*merged, split"),
        ({"labels": "both"}, "labels is 'both'"),
        ({"level": 2}, "no level 2. Type --level 0 .* to 1"),
        ({"level": -1}, "no level -1"),
        ({"folder": "small.zarr/x"}, "lies inside"),
        ({"folder": "small.zarr/zarr.json"}, "is a file"),
    ],
)
def test_wrong_arguments_are_told(small: Result, tmp_path: Path, how: dict[str, Any], words: str) -> None:
    given = {"folder": "out", "format": "tiff"} | how
    with pytest.raises(OutputError, match=words):
        export(small.path, tmp_path / given.pop("folder"), **given)
    assert not (tmp_path / "out").exists()


def test_results_that_cannot_be_exported(tmp_path: Path) -> None:
    unfinished = make_result(tmp_path / "a.zarr", counts(), status="incomplete")
    with pytest.raises(OutputError, match="is not finished"):
        export(unfinished, tmp_path / "out", "tiff")
    with pytest.raises(OutputError, match="does not exist"):
        export(tmp_path / "b.zarr", tmp_path / "out", "tiff")
    with pytest.raises(OutputError, match=r"holds float32, but a PNG.*--8bit"):
        export(make_result(tmp_path / "c.zarr", counts(dtype="float32")), tmp_path / "out", "png")
    wide = make_result(tmp_path / "d.zarr", ((1, 1, 2, 70_000), "uint8"))
    with pytest.raises(OutputError, match="do not fit into a GIF"):
        export(wide, tmp_path / "out", "gif")
    assert not (tmp_path / "out").exists()


def test_progress_ends_with_all_planes(small: Result, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    note: Callable[[int, int], None] = lambda done, total: told.append((done, total))  # noqa: E731
    export(small, tmp_path / "out", "tiff", labels="split", progress=note)
    assert told[-1] == (11 * 7, 11 * 7)
    assert told == sorted(told)
    assert json.dumps(told)
