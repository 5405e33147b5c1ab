// From expected photo-electrons to counts, pixel by pixel: kernels/detector/camera.py and kernels/numbers/draws.py.
#pragma once
#include "draws.cuh"
#include "threads.cuh"

// Layout of `array_device.DETECTOR`; all fields have 8 bytes.
struct Detector {
  double lit, dark;               // electrons added to the signal before and after the illumination profile
  double read_noise, excess;      // standard deviation, electrons; excess noise - 1
  double gain, offset, top;       // counts
  Key shot, read, surplus;
  Triple start, shape;            // first pixel in the image; pixels
};

// `problems[0]` counts clipped pixels, `problems[1]` pixels with means for which no count can be drawn.
extern "C" __global__ void draw_counts(Detector d, const float *expected, const double *profile_y,
                                       const double *profile_x, const unsigned char *bin_of, unsigned short *counts,
                                       word64 *histogram, word64 *problems) {
  EACH(i, d.shape.z * d.shape.y * d.shape.x) {
    whole column = i % d.shape.x, row = i / d.shape.x % d.shape.y;
    whole x = d.start.x + column, y = d.start.y + row, z = d.start.z + i / d.shape.x / d.shape.y;
    double signal = (double)expected[i];
    if (signal < 0.0) signal = 0.0;
    double rate = profile_y[row] * profile_x[column] * (signal + d.lit) + d.dark;
    if (!(rate <= LARGEST_MEAN)) {
      atomicAdd(problems + 1, (word64)1);
      continue;
    }
    Words w = philox(z, y, x, 0, d.shot.a, d.shot.b);
    double electrons = (double)poisson_quantile(unit_double(w.a, w.b), rate);
    double noise = 0.0;
    if (d.read_noise > 0.0) {
      w = philox(z, y, x, 0, d.read.a, d.read.b);
      noise += d.read_noise * normal_quantile(unit_double(w.a, w.b));
    }
    if (d.excess > 0.0) {
      w = philox(z, y, x, 0, d.surplus.a, d.surplus.b);
      noise += sqrt(d.excess * electrons) * normal_quantile(unit_double(w.a, w.b));
    }
    double value = floor(d.gain * (electrons + noise) + d.offset + 0.5);
    if (value > d.top) {
      value = d.top;
      atomicAdd(problems, (word64)1);
    }
    counts[i] = (unsigned short)(value > 0.0 ? value : 0.0);
    atomicAdd(histogram + bin_of[counts[i]], (word64)1);
  }
}
