// Deposit on coarse nodes by quadratic weights in fixed-point integers: kernels/imaging/nodes.py.
#pragma once
#include "numbers.cuh"
#include "threads.cuh"

constexpr whole NODE_ONE = 1 << 10;

// Weights of the nodes below, at and above; see `nodes._weights`.
__device__ inline void node_weights(double fraction, whole *w) {
  whole t = (whole)(fraction * NODE_ONE + 0.5);
  w[2] = t * t / (2 * NODE_ONE);
  w[0] = w[2] - t + NODE_ONE / 2;
  w[1] = NODE_ONE - w[0] - w[2];
}

// See `nodes.deposit_nodes`.
extern "C" __global__ void deposit_nodes(const double *z, const double *y, const double *x, const int *weight,
                                         whole count, Point per_nm, Triple start, whole nz, whole ny, whole nx,
                                         word64 *out) {
  EACH(i, count) {
    double pz = z[i] * per_nm.z, py = y[i] * per_nm.y, px = x[i] * per_nm.x;
    double fz = floor(pz), fy = floor(py), fx = floor(px);
    whole kz = (whole)fz - 1 - start.z, ky = (whole)fy - 1 - start.y, kx = (whole)fx - 1 - start.x;
    whole wz[3], wy[3], wx[3];
    node_weights(pz - fz, wz);
    node_weights(py - fy, wy);
    node_weights(px - fx, wx);
    for (int dz = 0; dz < 3; ++dz) {
      for (int dy = 0; dy < 3; ++dy) {
        for (int dx = 0; dx < 3; ++dx) {
          whole k = kz + dz, r = ky + dy, c = kx + dx;
          if (k < 0 || k >= nz || r < 0 || r >= ny || c < 0 || c >= nx) continue;
          atomicAdd(out + (k * ny + r) * nx + c, (word64)(wz[dz] * weight[i] * wy[dy] * wx[dx]));
        }
      }
    }
  }
}
