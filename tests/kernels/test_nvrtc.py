"""The GPU's primitives compile for a GPU: NVIDIA's run-time compiler needs none to do it."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path

import pytest

from simexm.kernels.devices.cupy_device import OPTIONS, SOURCES, kernel_text

KERNELS = re.findall(r"__global__ void (\w+)\(", kernel_text())
MOVES = {"mov", "ld", "st", "selp", "setp", "cvt", "neg", "abs", "min", "max"}
"""Instructions that round nothing, but for conversions, which round as IEEE 754 says."""


class Nvrtc:
    """NVRTC of the package nvidia-cuda-nvrtc-cu12, by its C interface."""

    def __init__(self, library: Path) -> None:
        self._nvrtc = ctypes.CDLL(str(library))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        assert getattr(self._nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(self._nvrtc, f"nvrtcGet{what}")(program, text) == 0
        return text.raw

    def compile(self, architecture: str, what: str) -> bytes:
        """PTX or CUBIN of the primitives, with the options that a run uses."""
        program = ctypes.c_void_p()
        text = kernel_text().encode()
        assert self._nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"simexm.cu", 0, None, None) == 0
        options = [o.encode() for o in (*OPTIONS, f"--gpu-architecture={architecture}")]
        done = self._nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        assert done == 0, self._text(program, "ProgramLog").decode()
        return self._text(program, what)


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    """The compiler, or a skip where it is not installed."""
    spec = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cuda_nvrtc")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    libraries = [p for folder in folders for p in sorted(folder.glob("lib/libnvrtc.so.*"))]
    if not libraries:
        pytest.skip("no NVRTC to compile GPU kernels with; pip install nvidia-cuda-nvrtc-cu12 (Linux)")
    return Nvrtc(libraries[0])


def test_the_text_holds_every_file_once() -> None:
    text = kernel_text()
    for path in SOURCES.iterdir():
        (last,) = path.read_text(encoding="utf-8").rstrip().splitlines()[-1:]
        assert last in text or last.startswith("#include")
    assert "#include" not in text
    assert len(KERNELS) == len(set(KERNELS)) == 13


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_the_primitives_compile_to_machine_code(nvrtc: Nvrtc, architecture: str) -> None:
    code = nvrtc.compile(architecture, "CUBIN")
    assert code.startswith(b"\x7fELF")
    assert all(name.encode() in code for name in KERNELS)


def test_no_product_is_contracted_with_a_sum(nvrtc: Nvrtc) -> None:
    """Every double operation is one of IEEE 754's, rounded to the nearest: what the host's compiler did, too."""
    ptx = nvrtc.compile("compute_75", "PTX").decode()
    used = {op for op in re.findall(r"\b([a-z]+(?:\.[a-z0-9]+)*\.f64)\b", ptx) if op.split(".")[0] not in MOVES}
    assert used == {f"{op}.rn.f64" for op in ("add", "sub", "mul", "div", "sqrt")}
    assert all(f".entry {name}(" in ptx for name in KERNELS)
