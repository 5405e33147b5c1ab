# mypy: ignore-errors
"""Estimate rigid shifts with pycorre in an environment of its own: `python run_pycorre.py MOVIE.npy SHIFTS.npy`."""

import sys

import numpy as np
from pycorre import RigidMotionCorrection

model = RigidMotionCorrection(device="cpu", max_shifts=(20, 20))
model.fit(np.load(sys.argv[1]).astype(np.float32))
np.save(sys.argv[2], np.asarray(model.rigid_shifts))
