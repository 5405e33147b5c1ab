// The primitives of a run on a GPU. CuPy compiles this text (simexm/kernels/cupy_device.py); the tests compile the very
// same for the host and compare it with the compiled CPU kernels, bit for bit.
#include "amplicons.cuh"
#include "camera.cuh"
#include "deposit.cuh"
#include "emit.cuh"
#include "fields.cuh"
