"""Fixtures that several folders share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_planes import Backend
from tests.cuda_host import Host, compile_for_host

LONGEST = (
    "kernels/test_cuda_source.py", "planning/test_memory.py", "run/test_processes.py", "storage/", "faults/",
    "jobs/", "test_readme.py", "run/", "view/", "stages/",
)  # fmt: skip
"""Where tests take long, in this order: they begin first, so that no worker of pytest-xdist is alone with them at the end. The
first of the default tests compiles most of what the others need."""

TOGETHER = ("faults/", "storage/")
"""Folders whose files share a cluster or a server: one worker of pytest-xdist runs all of them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, hand out the folders of `TOGETHER` as a whole."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class ByFileOrFolder(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folder = next((f for f in TOGETHER if nodeid.startswith(f"tests/{f}")), None)
            return folder or str(super()._split_scope(nodeid))

    return ByFileOrFolder(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist hand files out in the order of the tests; by itself it begins with those of most tests.

    And let Ctrl-C end the programs that tests start: a shell that starts pytest in the background has them ignore it.
    """
    _keep_bytecode(config.rootpath / ".pytest_cache" / "bytecode")
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_bytecode(folder: Path) -> None:
    """Let processes that tests start keep bytecode outside the tree, if they may keep none: each would compile simexm again."""
    if sys.dont_write_bytecode and sys.pycache_prefix is None:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        return next((n for n, prefix in enumerate(LONGEST) if name.startswith(prefix)), len(LONGEST))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Look for rings of objects less often, and no more among what is there by now.

    Compiling makes many objects that stay, and Python looked through them and all modules and tests again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _data_folder() -> Path | None:
    given = os.environ.get("SIMEXM_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def cortex_tif() -> Path:
    """The real cortex segmentation, 512^3 voxels of 40 x 32 x 32 nm, uint32."""
    folder = _data_folder()
    if folder is None or not (folder / "pinky40_512.tif").is_file():
        pytest.skip("the cortex volume is not here: point SIMEXM_TEST_DATA at the folder with pinky40_512.tif")
    return folder / "pinky40_512.tif"


@pytest.fixture(scope="session")
def reference_2017() -> Path:
    """Images of the 2017 program: means and variances of 96 runs of four cases, `NAME.npz` and `NAME.json`."""
    folder = _data_folder()
    reference = folder.parent / "reference" / "simexm2017" if folder is not None else None
    if reference is None or not (reference / "confocal_membrane.npz").is_file():
        pytest.skip(
            "the reference images are not here: SIMEXM_TEST_DATA must point at a folder "
            "beside which lies reference/simexm2017"
        )
    return reference


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GPU's primitives compiled for the host."""
    return compile_for_host(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """A GPU; and its primitives on the host, each launch as a grid of 3 blocks of 5 threads."""
    if request.param == "host":
        return Host(request.getfixturevalue("host_library"), blocks=3, threads=5)
    if why := cupy_device.missing():
        pytest.skip(f"no GPU to compute on: {why}")
    return cupy_device.CuPy()
