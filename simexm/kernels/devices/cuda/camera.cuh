// From expected photo-electrons to counts, pixel by pixel: kernels/detector/camera.py.
#pragma once
#include "draws.cuh"
#include "gamma.cuh"
#include "threads.cuh"

// Layout of `array_device.DETECTOR`; all fields have 8 bytes.
struct Detector {
  double lit, dark, full_well, dead_share;        // see `camera.DetectorLaw`
  double variance, multiplication, register_e;
  double read_noise, gain, offset, top;
  Key shot, multiply, read;
  Triple start, shape;                            // first pixel in the image; pixels
  whole tabled, mapped;                           // rows of the table of pulses; whether there are maps
};

__device__ inline double normal_number(whole z, whole y, whole x, Key key) {
  Words w = philox(z, y, x, 0, key.a, key.b);
  return normal_quantile(unit_double(w.a, w.b));
}

// `problems[0]` counts saturated pixels, `problems[1]` pixels with means for which no count can be drawn.
extern "C" __global__ void draw_counts(Detector d, const float *expected, const double *profile_y,
                                       const double *profile_x, const double *table, const float *map_dark,
                                       const float *map_read_noise, const float *map_gain, const float *map_offset,
                                       const unsigned char *bin_of, unsigned short *counts, word64 *histogram,
                                       word64 *problems) {
  EACH(i, d.shape.z * d.shape.y * d.shape.x) {
    whole column = i % d.shape.x, row = i / d.shape.x % d.shape.y, pixel = row * d.shape.x + column;
    whole x = d.start.x + column, y = d.start.y + row, z = d.start.z + i / d.shape.x / d.shape.y;
    double read_noise = d.mapped ? (double)map_read_noise[pixel] : d.read_noise;
    double gain = d.mapped ? (double)map_gain[pixel] : d.gain;
    double offset = d.mapped ? (double)map_offset[pixel] : d.offset;
    double signal = (double)expected[i];
    if (signal < 0.0) signal = 0.0;
    double dark = d.dark + (d.mapped ? (double)map_dark[pixel] : 0.0);
    double rate = profile_y[row] * profile_x[column] * (signal + d.lit) + dark;
    if (!(rate <= LARGEST_MEAN)) {
      atomicAdd(problems + 1, (word64)1);
      continue;
    }
    Words w = philox(z, y, x, 0, d.shot.a, d.shot.b);
    double u = unit_double(w.a, w.b);
    double electrons = (double)(d.dead_share > 0.0 ? pulse_count_quantile(u, rate, d.dead_share) : poisson_quantile(u, rate));
    bool full = electrons > d.full_well;
    electrons = full ? d.full_well : electrons;
    if (d.variance > 0.0) {
      double number = normal_number(z, y, x, d.multiply);
      electrons = d.multiplication * pulse_sum((whole)electrons, number, d.variance, table, d.tabled);
      if (electrons > d.register_e) {
        electrons = d.register_e;
        full = true;
      }
    }
    if (read_noise != 0.0) electrons += read_noise * normal_number(z, y, x, d.read);
    double value = floor(gain * electrons + offset + 0.5);
    if (value > d.top) {
      value = d.top;
      full = true;
    }
    if (full) atomicAdd(problems, (word64)1);
    counts[i] = (unsigned short)(value > 0.0 ? value : 0.0);
    atomicAdd(histogram + bin_of[counts[i]], (word64)1);
  }
}
