// Sums of gamma-distributed pulses: the same numbers as kernels/numbers/gamma.py, which makes the table.
#pragma once
#include "numbers.cuh"

constexpr double LOWEST_W = -8.5;
constexpr whole PER_SIGMA = 16, QUANTILES = 275;

__device__ inline double gamma_expansion(double w, double shape, double root) {
  double s = w * w;
  double first = (s - 1.0) / 3.0;
  double second = w * (s - 7.0) / 36.0;
  double third = -(s * (3.0 * s + 7.0) - 16.0) / 810.0;
  double fourth = w * (s * (9.0 * s + 256.0) - 433.0) / 38880.0;
  return shape + (root * w + (first + (second + (third + fourth / root) / root) / root));
}

__device__ inline double pulse_sum(whole n, double w, double variance, const double *table, whole tabled) {
  if (n <= 0) return 0.0;
  if (n >= tabled) {
    double shape = n / variance;
    double x = gamma_expansion(w, shape, sqrt(shape));
    return (x > 0.0 ? x : 0.0) * variance;
  }
  double place = (w - LOWEST_W) * PER_SIGMA;
  whole i = (whole)place;
  i = i > 1 ? i : 1;
  i = i < QUANTILES - 3 ? i : QUANTILES - 3;
  double s = place - (i - 1);
  const double *row = table + n * QUANTILES + i;
  double a = row[-1], b = row[0], c = row[1], d = row[2];
  double first = b - a, second = c - 2.0 * b + a;
  double third = d - 3.0 * c + 3.0 * b - a;
  double x = a + s * (first + (s - 1.0) / 2.0 * (second + (s - 2.0) / 3.0 * third));
  return x > 0.0 ? x : 0.0;
}
