// Draws for arrays, to test the scalar functions.
#pragma once
#include "draws.cuh"
#include "gamma.cuh"
#include "threads.cuh"

extern "C" __global__ void poisson_quantiles(const double *u, const double *mean, whole count, whole *out) {
  EACH(i, count) { out[i] = poisson_quantile(u[i], mean[i]); }
}

extern "C" __global__ void binomial_quantiles(const double *u, const whole *trials, const double *share, whole count,
                                              whole *out) {
  EACH(i, count) { out[i] = binomial_quantile(u[i], trials[i], share[i]); }
}

extern "C" __global__ void pulse_sums(const whole *n, const double *w, double variance, const double *table, whole tabled,
                                      whole count, double *out) {
  EACH(i, count) { out[i] = pulse_sum(n[i], w[i], variance, table, tabled); }
}

// exp, log, normal quantile and truncated normal quantile of each number, interleaved in `out`.
extern "C" __global__ void functions(const double *x, whole count, double *out) {
  EACH(i, count) {
    out[4 * i] = exponential(x[i]);
    out[4 * i + 1] = logarithm(x[i]);
    out[4 * i + 2] = normal_quantile(x[i]);
    out[4 * i + 3] = normal_quantile_cut(x[i]);
  }
}

extern "C" __global__ void philox_words(const whole *counters, Key key, whole count, word *out) {
  EACH(i, count) {
    Words w = philox(counters[4 * i], counters[4 * i + 1], counters[4 * i + 2], counters[4 * i + 3], key.a, key.b);
    out[4 * i] = w.a;
    out[4 * i + 1] = w.b;
    out[4 * i + 2] = w.c;
    out[4 * i + 3] = w.d;
  }
}
