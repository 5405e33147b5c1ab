"""What stands in files of movies is what the result holds, frame by frame, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from simexm.errors import OutputError
from simexm.export import recording
from simexm.export.export import export
from simexm.result.result import Result

av = pytest.importorskip("av")
STEP_S = 0.05


def make_movie(path: Path, frames: NDArray[Any], top: int = 255, names: tuple[str, ...] = ("green",)) -> Result:
    """Store frames (t, c, y, x) in the form that a run leaves them."""
    shape = (*frames.shape[:2], 1, *frames.shape[2:])
    root = zarr.create_group(path, zarr_format=3)
    chunk = (8, 1, 1, *shape[-2:])
    root.create_array("0", shape=shape, dtype=frames.dtype, chunks=chunk, shards=chunk)[...] = frames[:, :, None]
    window = {"min": 0, "max": top, "start": 0.0, "end": float(top)}
    channels = [{"label": name, "color": "00FF00", "window": window} for name in names]
    scale = {"type": "scale", "scale": [STEP_S, 1.0, 10.0, 2.0, 2.0]}
    corner = {"type": "translation", "translation": [0.0, 0.0, 5.0, 41.0, 31.0]}
    axes = [{"name": n, "type": {"t": "time", "c": "channel"}.get(n, "space")} for n in "tczyx"]
    scales = [
        {"name": "movie", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale, corner]}]}
    ]
    time = {"axis": "time", "coordinates": [STEP_S * n for n in range(len(frames))], "unit": "second"}
    mark = {"hash": "0" * 32, "status": "complete", "outputs": [], "acquisition": [time]}
    attributes: Any = {
        "ome": {"version": "0.5", "multiscales": scales, "omero": {"channels": channels}},
        "simexm": mark,
    }
    root.attrs.update(attributes)
    return Result.open(path)


def counts(t: int = 21, c: int = 1, top: int = 255, dtype: str = "uint16") -> NDArray[Any]:
    """Noise, (t, c, y, x)."""
    return np.random.default_rng(1).integers(0, top + 1, (t, c, 18, 26)).astype(dtype)


def decoded(path: Path) -> NDArray[Any]:
    """Frames of a video, by its decoder."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A movie of 8 bits, stored in 16."""
    return make_movie(tmp_path_factory.mktemp("movies") / "movie.zarr", counts())


def test_frames_come_back_from_every_format(movie: Result, tmp_path: Path) -> None:
    frames = counts()[:, 0]
    paths = {form: export(movie, tmp_path / form, form)[0] for form in ("tiff", "ome-tiff", "avi", "gif", "png")}
    for form in ("tiff", "ome-tiff"):
        with tifffile.TiffFile(paths[form]) as file:
            assert (file.series[0].axes, file.series[0].dtype) == ("TYX", np.dtype(np.uint8))
            np.testing.assert_array_equal(file.asarray(), frames)
            if form == "tiff":
                assert (file.imagej_metadata or {})["finterval"] == STEP_S
            else:
                assert 'SizeT="21"' in (file.ome_metadata or "")
                assert f'TimeIncrement="{STEP_S}"' in (file.ome_metadata or "")
    np.testing.assert_array_equal(decoded(paths["avi"]), frames)
    with av.open(str(paths["avi"])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, float(stream.average_rate)) == ("ffv1", 1 / STEP_S)
    with Image.open(paths["gif"]) as gif:
        assert (gif.n_frames, gif.info["duration"]) == (21, 1000 * STEP_S)  # type: ignore[attr-defined]
    np.testing.assert_array_equal([np.asarray(Image.open(p)) for p in sorted(paths["png"].iterdir())], frames)


def test_deep_values_are_kept(tmp_path: Path) -> None:
    frames = counts(top=1023)
    path = export(make_movie(tmp_path / "ten.zarr", frames, 1023), tmp_path / "out", "avi")[0]
    np.testing.assert_array_equal(decoded(path), frames[:, 0])
    shown = export(Result.open(tmp_path / "ten.zarr"), tmp_path / "eight", "avi", eight_bit=True)[0]
    np.testing.assert_array_equal(decoded(shown), np.rint(frames[:, 0] * (255 / frames.max())))


def test_bytes_are_the_same_each_time(movie: Result, tmp_path: Path) -> None:
    one, other = (export(movie, tmp_path / name, "avi")[0].read_bytes() for name in ("a", "b"))
    assert one == other


def test_channels_are_merged_in_their_colours(tmp_path: Path) -> None:
    result = make_movie(tmp_path / "two.zarr", counts(c=2), names=("a", "b"))
    assert {p.name for p in export(result, tmp_path / "split", "avi")} == {"a.avi", "b.avi"}
    (path,) = export(result, tmp_path / "merged", "avi", channels="merged")
    with av.open(str(path)) as container:
        rgb = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    np.testing.assert_array_equal(rgb[..., 1], np.minimum(counts(c=2).sum(axis=1), 255))
    assert not rgb[..., 0].any()


def test_a_recording_has_the_layout_of_the_acquisition(
    movie: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of so many frames, times in ms, metadata of session and device; it may be replaced."""
    monkeypatch.setattr(recording, "FRAMES_PER_FILE", 10)
    for again in (False, True):
        folder, about = export(movie, tmp_path, "miniscope", overwrite=again)
    assert {p.name for p in folder.iterdir()} == {"0.avi", "1.avi", "2.avi", "timeStamps.csv", "metaData.json"}
    parts = [decoded(folder / f"{n}.avi") for n in range(3)]
    assert [len(part) for part in parts] == [10, 10, 1]
    np.testing.assert_array_equal(np.concatenate(parts), counts()[:, 0])
    times = np.loadtxt(folder / "timeStamps.csv", delimiter=",", skiprows=1, dtype=int)
    np.testing.assert_array_equal(times[:, 1], 50 * np.arange(21))
    device = json.loads((folder / "metaData.json").read_text())
    assert (device["frameRate"], device["framesPerFile"], device["compression"]) == ("20FPS", 10, "FFV1")
    assert json.loads(about.read_text())["miniscopes"] == [folder.name]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        export(movie, tmp_path, "miniscope", overwrite=True)


def test_memory_does_not_grow_with_the_movie(tmp_path: Path) -> None:
    peaks = []
    for frames in (64, 512):
        result = make_movie(tmp_path / f"{frames}.zarr", np.zeros((frames, 1, 128, 128), np.uint16))
        tracemalloc.start()
        export(result, tmp_path / str(frames), "avi")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2e6  # the longer movie has 15 MB more


def test_what_is_no_movie_is_refused(small: Result, movie: Result, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no time axis"):
        export(small, tmp_path / "a", "avi")
    with pytest.raises(OutputError, match="holds no labels"):
        export(movie, tmp_path / "b", "avi", labels="merged")
    with pytest.raises(OutputError, match="8 or 16 bits"):
        export(make_movie(tmp_path / "f.zarr", counts(dtype="float32")), tmp_path / "c", "avi")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_without_pyav_a_message_says_what_to_install(
    movie: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(OutputError, match=r"simexm\[movies\]"):
        export(movie, tmp_path / "out", "miniscope")
    assert not (tmp_path / "out").exists()
