// The primitives of a run on a GPU. CuPy compiles them (simexm/kernels/devices/cupy_device.py); the tests compile the same code
// for the host and compare it with the CPU kernels, bit for bit.
#include "amplicons.cuh"
#include "camera.cuh"
#include "deposit.cuh"
#include "emit.cuh"
#include "fields.cuh"
#include "nodes.cuh"
