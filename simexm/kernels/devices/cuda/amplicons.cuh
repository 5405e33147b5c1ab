// Dyes of amplicons: `amplicons._scatter`. One thread per amplicon.
#pragma once
#include "numbers.cuh"
#include "threads.cuh"

constexpr whole TRY_BITS = 8, DYE_BITS = 12;
constexpr int AMPLICON = 2;  // kind in identities

// `ends` is the cumulative sum of the dyes.
extern "C" __global__ void scatter_dyes(const double *place, const int *voxel, const int *number, const int *cells,
                                        const int *dyes, const unsigned char *region, const unsigned char *owned,
                                        const whole *ends, const whole *keys, double radius, whole first, whole stop,
                                        double *z, double *y, double *x, int *weight, int *cell, unsigned char *own,
                                        int *identity, whole identified) {
  whole before = first > 0 ? ends[first - 1] : 0;
  EACH(offset, stop - first) {
    whole i = first + offset, n = ends[i] - dyes[i] - before;
    const whole *key = keys + 2 * region[i];
    for (whole d = 0; d < dyes[i]; ++d, ++n) {
      whole draw = ((whole)number[i] << DYE_BITS | d) << TRY_BITS;
      double a = 0.0, b = 0.0, c = 0.0;
      // rejection from the cube
      for (int tries = 0; tries < 1 << TRY_BITS; ++tries, ++draw) {
        Words w = philox(voxel[3 * i], voxel[3 * i + 1], voxel[3 * i + 2], draw, key[0], key[1]);
        a = 2.0 * unit_float32word(w.a) - 1.0;
        b = 2.0 * unit_float32word(w.b) - 1.0;
        c = 2.0 * unit_float32word(w.c) - 1.0;
        if (a * a + b * b + c * c <= 1.0) break;
      }
      z[n] = place[3 * i] + radius * a;
      y[n] = place[3 * i + 1] + radius * b;
      x[n] = place[3 * i + 2] + radius * c;
      weight[n] = 1;
      cell[n] = cells[i];
      own[n] = owned[i];
      if (identified) {
        int *row = identity + 6 * n;
        row[0] = voxel[3 * i], row[1] = voxel[3 * i + 1], row[2] = voxel[3 * i + 2];
        row[3] = region[i], row[4] = number[i] << DYE_BITS | (int)d, row[5] = AMPLICON;
      }
    }
  }
}
