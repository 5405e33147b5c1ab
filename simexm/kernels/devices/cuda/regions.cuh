// Regions of cells, and the surface of a voxel: kernels/labels/regions.py.
#pragma once
#include "numbers.cuh"
#include "threads.cuh"

constexpr unsigned char MEMBRANE = 1, CYTOSOL = 2;

// Region bits of a voxel, stored in `bytes` bytes; see `regions.bits_type`.
__device__ inline whole bits_of(const void *regions, whole voxel, whole bytes) {
  if (bytes == 1) return ((const unsigned char *)regions)[voxel];
  if (bytes == 2) return ((const unsigned short *)regions)[voxel];
  if (bytes == 4) return ((const unsigned int *)regions)[voxel];
  return ((const whole *)regions)[voxel];
}

// MEMBRANE or CYTOSOL of each voxel of a cell; see `regions.cell_regions`.
extern "C" __global__ void cell_regions(const int *index, whole nz, whole ny, whole nx, whole in_slice,
                                        unsigned char *out) {
  EACH(i, nz * ny * nx) {
    whole x = i % nx, y = i / nx % ny, z = i / nx / ny;
    int own = index[i];
    bool inside = true;
    for (whole dz = in_slice ? 0 : -1; dz <= (in_slice ? 0 : 1); ++dz) {
      if (z + dz < 0 || z + dz >= nz) continue;
      for (whole dy = -1; dy <= 1; ++dy) {
        if (y + dy < 0 || y + dy >= ny) continue;
        for (whole dx = -1; dx <= 1; ++dx)
          if (x + dx >= 0 && x + dx < nx && index[i + (dz * ny + dy) * nx + dx] != own) inside = false;
      }
    }
    out[i] = own == 0 ? 0 : inside ? CYTOSOL : MEMBRANE;
  }
}

// Surface of voxel (z, y, x) in um^2 by the weights (3, 3, 3) of differing neighbours within the array.
__device__ inline double surface_um2(const int *index, Triple shape, whole z, whole y, whole x, const double *weights) {
  whole at = (z * shape.y + y) * shape.x + x;
  int own = index[at];
  double total = 0.0;
  for (whole dz = -1; dz <= 1; ++dz) {
    if (z + dz < 0 || z + dz >= shape.z) continue;
    for (whole dy = -1; dy <= 1; ++dy) {
      if (y + dy < 0 || y + dy >= shape.y) continue;
      for (whole dx = -1; dx <= 1; ++dx)
        if (x + dx >= 0 && x + dx < shape.x && index[at + (dz * shape.y + dy) * shape.x + dx] != own)
          total += weights[((dz + 1) * 3 + dy + 1) * 3 + dx + 1];
    }
  }
  return total;
}
