// Deposit by integer weights, whose sums do not depend on the order: kernels/imaging/deposit.py and gridding.py.
#pragma once
#include "numbers.cuh"
#include "threads.cuh"

constexpr int STEP_BITS = 10, NODES = 4;
constexpr whole STEPS = 1 << STEP_BITS;

// See `deposit.deposit`; `early` counts the emitters that reach planes above the ring.
extern "C" __global__ void deposit(const double *z, const double *y, const double *x, const int *weight, whole count,
                                   Point per_nm, Point shift, Triple node, whole base, whole end, whole depth, whole ny,
                                   whole nx, const int *weights, word64 *ring, word64 *early) {
  whole top = end < base + depth ? end : base + depth;
  EACH(i, count) {
    whole tz = (whole)floor((z[i] * per_nm.z - shift.z) * STEPS);
    whole ty = (whole)floor((y[i] * per_nm.y - shift.y) * STEPS);
    whole tx = (whole)floor((x[i] * per_nm.x - shift.x) * STEPS);
    whole kz = (tz >> STEP_BITS) - 1, ky = (ty >> STEP_BITS) - 1 - node.y, kx = (tx >> STEP_BITS) - 1 - node.x;
    if (ky <= -NODES || ky >= ny || kx <= -NODES || kx >= nx || kz + 3 < base || kz >= end) continue;
    if (kz + 3 >= top && top < end) {
      atomicAdd(early, (word64)1);
      continue;
    }
    const int *wz = weights + NODES * (tz & (STEPS - 1));
    const int *wy = weights + NODES * (ty & (STEPS - 1));
    const int *wx = weights + NODES * (tx & (STEPS - 1));
    for (int dz = 0; dz < NODES; ++dz) {
      whole k = kz + dz;
      if (k < base || k >= top) continue;
      whole a = (whole)wz[dz] * weight[i];
      whole slot = (k % depth + depth) % depth;
      for (int dy = 0; dy < NODES; ++dy) {
        whole r = ky + dy;
        if (r < 0 || r >= ny) continue;
        whole b = a * wy[dy];
        for (int dx = 0; dx < NODES; ++dx) {
          whole c = kx + dx;
          if (c >= 0 && c < nx) atomicAdd(ring + (slot * ny + r) * nx + c, (word64)(b * wx[dx]));
        }
      }
    }
  }
}

// Add each emitter to the pixel whose half-open box contains it; see `deposit.deposit_counts`.
extern "C" __global__ void deposit_counts(const double *z, const double *y, const double *x, const int *weight,
                                          whole count, Point per_nm, Triple start, whole nz, whole ny, whole nx,
                                          word64 *out) {
  EACH(i, count) {
    whole k = (whole)floor(z[i] * per_nm.z) - start.z;
    whole r = (whole)floor(y[i] * per_nm.y) - start.y;
    whole c = (whole)floor(x[i] * per_nm.x) - start.x;
    if (k >= 0 && k < nz && r >= 0 && r < ny && c >= 0 && c < nx) {
      atomicAdd(out + (k * ny + r) * nx + c, (word64)(whole)weight[i]);
    }
  }
}
