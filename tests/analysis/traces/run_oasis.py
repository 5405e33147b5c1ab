# mypy: ignore-errors
"""Deconvolve traces with oasis in an environment of its own: `python run_oasis.py TRACES.npy SPIKES.npy`."""

import sys

import numpy as np
from oasis.functions import deconvolve

np.save(sys.argv[2], [deconvolve(trace, penalty=1)[1] for trace in np.load(sys.argv[1]).astype(np.float64)])
