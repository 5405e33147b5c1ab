# mypy: ignore-errors
"""Extract cells with minian 2 in an environment of its own: `python run_minian.py MOVIE.tiff OUT`.

Its functions are called in the order and with the parameters of its own tutorial; OUT is then a folder as it saves it.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["MINIAN_INTERMEDIATE"] = tempfile.mkdtemp()
import dask
import numpy as np
from minian import cnmf
from minian.initialization import initA, initC, ks_refine, pnr_refine, seeds_init, seeds_merge
from minian.motion_correction import apply_transform, estimate_motion
from minian.preprocessing import denoise, remove_background
from minian.utilities import load_videos, save_minian

WHOLE = {"frame": -1, "height": -1, "width": -1}


def extract(path: Path, out: Path) -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "movie.tif").symlink_to(path)  # .tiff is unknown to it
    movie = load_videos(str(folder), pattern=r"movie\.tif$", dtype=np.uint8).compute()
    chunked = movie.chunk({"frame": 100, "height": -1, "width": -1})
    flat = remove_background(denoise(chunked - chunked.min("frame"), method="median", ksize=7), method="tophat", wnd=15)
    flat = flat.compute().chunk({"frame": 100, "height": -1, "width": -1})
    motion = estimate_motion(flat, dim="frame").compute()
    by_frame = apply_transform(flat, motion, fill=0).astype(np.float32).compute()
    by_pixel = by_frame.chunk({"frame": -1, "height": 32, "width": 32})
    by_frame = by_frame.chunk({"frame": 100, "height": -1, "width": -1})
    A, C = initial(by_frame, by_pixel)
    noise = cnmf.get_noise_fft(by_pixel, noise_range=(0.06, 0.5)).compute().chunk({"height": 32, "width": 32})
    for overlap, last in ((0.2, False), (0.4, True)):
        b, f = (v.compute() for v in cnmf.update_background(by_frame, A, C.chunk({"unit_id": -1, "frame": 100})))
        A, mask, scale = cnmf.update_spatial(
            by_pixel, A, C, noise, dl_wnd=10, sparse_penal=0.01, size_thres=(25, None), in_memory=True
        )
        A = A.compute().chunk({"unit_id": 1, "height": -1, "width": -1})
        C = (C.sel(unit_id=mask) * scale).compute().chunk({"unit_id": 1, "frame": -1})
        slow = C.chunk({"unit_id": -1, "frame": 100})
        b, f = (v.compute() for v in cnmf.update_background(by_frame, A, slow))
        f = f.chunk({"frame": 100})
        traces = cnmf.compute_trace(by_frame, A, b.chunk(), slow, f).compute().chunk({"unit_id": 1, "frame": -1})
        C, S, *_ = cnmf.update_temporal(
            A, C, YrA=traces, noise_freq=0.06, sparse_penal=1, p=1, add_lag=20, jac_thres=overlap
        )
        C, S = (v.compute().chunk({"unit_id": 1, "frame": -1}) for v in (C, S))
        A = A.sel(unit_id=C.coords["unit_id"].values)
        if not last:
            A, C, _ = cnmf.unit_merge(A, C, [C], thres_corr=0.8)
            A, C = (
                A.compute().chunk({"unit_id": 1, "height": -1, "width": -1}),
                C.compute().chunk({"unit_id": 1, "frame": -1}),
            )
    for name, array in {"A": A, "C": C, "S": S, "motion": motion}.items():
        plain = array.compute().chunk()
        save_minian(plain.rename(name), str(out), overwrite=True, meta_dict={"session": -1, "animal": -2})


def initial(by_frame, by_pixel):
    seeds = seeds_init(by_frame, wnd_size=1000, method="rolling", stp_size=500, max_wnd=15, diff_thres=3)
    seeds, _, _ = pnr_refine(by_pixel, seeds, noise_freq=0.06, thres=1)
    seeds = ks_refine(by_pixel, seeds, sig=0.05)
    seeds = seeds[seeds["mask_ks"] & seeds["mask_pnr"]].reset_index(drop=True)
    brightest = by_frame.max("frame").compute()
    seeds = seeds_merge(by_pixel, brightest, seeds, thres_dist=10, thres_corr=0.8, noise_freq=0.06)
    A = initA(by_pixel, seeds[seeds["mask_mrg"]], thres_corr=0.8, wnd=10, noise_freq=0.06).compute()
    A = A.chunk({"unit_id": 1, "height": -1, "width": -1})
    C = initC(by_frame, A).compute().chunk({"unit_id": 1, "frame": -1})
    A, C = cnmf.unit_merge(A, C, thres_corr=0.8)
    return A.compute().chunk({"unit_id": 1, "height": -1, "width": -1}), C.compute().chunk({"unit_id": 1, "frame": -1})


if __name__ == "__main__":
    with dask.config.set(scheduler="threads"):
        extract(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
