// Deposit by quadratic weights in fixed-point integers, whose sums do not depend on the order: kernels/imaging/deposit.py.
#pragma once
#include "numbers.cuh"
#include "threads.cuh"

constexpr whole FRACTION_ONE = 1 << 10;

// Weights of the nodes below, at and above; see `deposit._weights`.
__device__ inline void quadratic(double fraction, whole *w) {
  whole t = (whole)(fraction * FRACTION_ONE + 0.5);
  w[2] = t * t / (2 * FRACTION_ONE);
  w[0] = w[2] - t + FRACTION_ONE / 2;
  w[1] = FRACTION_ONE - w[0] - w[2];
}

// See `deposit.deposit`; `early` counts the emitters that reach planes above the ring.
extern "C" __global__ void deposit(const double *z, const double *y, const double *x, const int *weight, whole count,
                                   Point per_nm, Point shift, Triple node, whole base, whole end, whole depth, whole ny,
                                   whole nx, word64 *ring, word64 *early) {
  whole top = end < base + depth ? end : base + depth;
  EACH(i, count) {
    double pz = z[i] * per_nm.z - shift.z + 0.5;
    double py = y[i] * per_nm.y - shift.y + 0.5;
    double px = x[i] * per_nm.x - shift.x + 0.5;
    double fz = floor(pz), fy = floor(py), fx = floor(px);
    whole kz = (whole)fz - 1, ky = (whole)fy - 1 - node.y, kx = (whole)fx - 1 - node.x;
    if (ky <= -3 || ky >= ny || kx <= -3 || kx >= nx || kz + 2 < base || kz >= end) continue;
    if (kz + 2 >= top && top < end) {
      atomicAdd(early, (word64)1);
      continue;
    }
    whole wz[3], wy[3], wx[3];
    quadratic(pz - fz, wz);
    quadratic(py - fy, wy);
    quadratic(px - fx, wx);
    for (int dz = 0; dz < 3; ++dz) {
      whole k = kz + dz;
      if (k < base || k >= top) continue;
      whole a = wz[dz] * weight[i];
      whole slot = (k % depth + depth) % depth;
      for (int dy = 0; dy < 3; ++dy) {
        whole r = ky + dy;
        if (r < 0 || r >= ny) continue;
        whole b = a * wy[dy];
        for (int dx = 0; dx < 3; ++dx) {
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
