// Poisson and binomial counts by the inverse distribution function: the same numbers as kernels/numbers/draws.py and tails.py.
#pragma once
#include "numbers.cuh"

constexpr double SMALL_MEAN = 10.0, LEAST_MEAN = 0x1p-53, LARGEST_MEAN = 0x1p31;
constexpr double SUMMED_U = 1.0 - 0x1p-10, EXPANSION_SIGMA = 4.0;
constexpr double TWO_PI = 6.283185307179586, NEGLIGIBLE = 1e-17;

__device__ __noinline__ double stirling_error(whole n) {
  const double small[16] = {
      0.0, 0.08106146679532726, 0.0413406959554093, 0.02767792568499834, 0.020790672103765093, 0.016644691189821193,
      0.013876128823070748, 0.01189670994589177, 0.010411265261972096, 0.00925546218271273, 0.00833056343336287,
      0.007573675487951841, 0.00694284010720953, 0.006408994188004207, 0.0059513701127588475, 0.005554733551962801};
  if (n < 16) return small[n];
  double x = (double)n;
  double square = x * x;
  double s = 1.0 / 1260.0 - (1.0 / 1680.0 - (1.0 / 1188.0) / square) / square;
  return (1.0 / 12.0 - (1.0 / 360.0 - s / square) / square) / x;
}

__device__ __noinline__ double deviance(double x, double mean) {
  if (fabs(x - mean) < 0.1 * (x + mean)) {
    double v = (x - mean) / (x + mean);
    double w = v * v;
    double s = 1.0 / 11.0 + w * (1.0 / 13.0 + w * (1.0 / 15.0 + w * (1.0 / 17.0 + w * (1.0 / 19.0))));
    s = w * (1.0 / 3.0 + w * (1.0 / 5.0 + w * (1.0 / 7.0 + w * (1.0 / 9.0 + w * s))));
    return (x - mean) * v + 2.0 * x * v * s;
  }
  return x * logarithm(x / mean) + mean - x;
}

__device__ __noinline__ double poisson_pmf(whole n, double mean) {
  if (n == 0) return exponential(-mean);
  double x = (double)n;
  return exponential(-stirling_error(n) - deviance(x, mean)) / sqrt(TWO_PI * x);
}

__device__ __noinline__ double poisson_lower(whole n, double mean) {
  double total = 1.0, term = 1.0;
  for (double k = (double)n; k > 0.0 && term >= NEGLIGIBLE * total; k -= 1.0) {
    term *= k / mean;
    total += term;
  }
  return poisson_pmf(n, mean) * total;
}

__device__ __noinline__ double poisson_upper(whole n, double mean) {
  double total = 1.0, term = 1.0;
  for (double k = (double)(n + 2); term >= NEGLIGIBLE * total; k += 1.0) {
    term *= mean / k;
    total += term;
  }
  return poisson_pmf(n + 1, mean) * total;
}

__device__ __noinline__ whole poisson_settle(whole n, double u, double mean) {
  if (u < 0.5) {
    while (poisson_lower(n, mean) < u) n += 1;
    while (n > 0 && poisson_lower(n - 1, mean) >= u) n -= 1;
  } else {
    while (poisson_upper(n, mean) > 1.0 - u) n += 1;
    while (n > 0 && poisson_upper(n - 1, mean) <= 1.0 - u) n -= 1;
  }
  return n;
}

// Giles, Algorithm 955, ACM TOMS 42 (2016), article 7; see `draws.poisson_expansion`.
__device__ inline double poisson_expansion(double w, double mean, double root) {
  double s = w * w;
  double first = 1.0 / 3.0 + s * (1.0 / 6.0);
  double second = w * (-1.0 / 36.0 - s * (1.0 / 72.0));
  double third = -8.0 / 405.0 + s * (7.0 / 810.0 + s * (1.0 / 270.0));
  return mean + (root * w + (first + (second + third / root) / root));
}

__device__ inline double poisson_expansion_error(double w, double mean, double root) {
  double s = w * w;
  return (0.03 + 0.002 * (s * s * s)) / (mean * root) + 1e-15 * mean;
}

__device__ __noinline__ whole poisson_quantile(double u, double mean) {
  if (!(mean > LEAST_MEAN)) return 0;
  if (mean < SMALL_MEAN) {
    whole n = 0;
    double term = exponential(-mean);
    double total = term;
    while (total < u && term > NEGLIGIBLE) {
      n += 1;
      term *= mean / n;
      total += term;
    }
    return u <= SUMMED_U ? n : poisson_settle(n, u, mean);
  }
  double w = normal_quantile(u);
  double root = sqrt(mean);
  double x = poisson_expansion(w, mean, root);
  x = x > 0.0 ? x : 0.0;
  double below = floor(x);
  whole n = (whole)below;
  double error = poisson_expansion_error(w, mean, root);
  if (fabs(w) <= EXPANSION_SIGMA && x - below > error && x - below < 1.0 - error) return n;
  return poisson_settle(n, u, mean);
}

// Pulses counted with a dead time; see `draws.pulse_count_quantile`.
__device__ __noinline__ whole pulse_count_quantile(double u, double mean, double dead_share) {
  whole n = poisson_quantile(u, mean);
  if (n == 0 || !(dead_share > 0.0)) return n;
  whole pulses = n;
  n = (whole)(n / (1.0 + n * dead_share) + 0.5);
  while (n < pulses && poisson_quantile(u, mean * (1.0 - n * dead_share)) > n) n += 1;
  while (n > 0 && poisson_quantile(u, mean * (1.0 - (n - 1) * dead_share)) <= n - 1) n -= 1;
  return n;
}

// log(1 + x), Goldberg 1991, theorem 4.
__device__ inline double log_1_plus(double x) {
  double w = 1.0 + x;
  return w == 1.0 ? x : logarithm(w) * x / (w - 1.0);
}

__device__ __noinline__ double binomial_pmf(whole k, whole n, double p) {
  double q = 1.0 - p;
  if (k == 0) return exponential(n * log_1_plus(-p));
  if (k == n) return exponential(n * logarithm(p));
  double x = (double)k, y = (double)(n - k);
  double exponent = stirling_error(n) - stirling_error(k) - stirling_error(n - k);
  exponent -= deviance(x, n * p) + deviance(y, n * q);
  return exponential(exponent) * sqrt(n / (TWO_PI * x * y));
}

__device__ __noinline__ double binomial_lower(whole k, whole n, double p) {
  double odds = (1.0 - p) / p;
  double total = 1.0, term = 1.0;
  for (double j = (double)k; j > 0.0 && term >= NEGLIGIBLE * total; j -= 1.0) {
    term *= odds * j / (n - j + 1.0);
    total += term;
  }
  return binomial_pmf(k, n, p) * total;
}

__device__ __noinline__ double binomial_upper(whole k, whole n, double p) {
  if (k >= n) return 0.0;
  double odds = p / (1.0 - p);
  double total = 1.0, term = 1.0;
  for (double j = (double)(k + 1); j < n && term >= NEGLIGIBLE * total; j += 1.0) {
    term *= odds * (n - j) / (j + 1.0);
    total += term;
  }
  return binomial_pmf(k + 1, n, p) * total;
}

__device__ __noinline__ whole binomial_settle(whole k, double u, whole n, double p) {
  if (u < 0.5) {
    while (k < n && binomial_lower(k, n, p) < u) k += 1;
    while (k > 0 && binomial_lower(k - 1, n, p) >= u) k -= 1;
  } else {
    while (binomial_upper(k, n, p) > 1.0 - u) k += 1;
    while (k > 0 && binomial_upper(k - 1, n, p) <= 1.0 - u) k -= 1;
  }
  return k;
}

// For 0 < p <= 1/2.
__device__ __noinline__ whole binomial_quantile_rare(double u, whole n, double p) {
  if (n * p >= SMALL_MEAN) {
    double w = normal_quantile(u);
    double q = 1.0 - p;
    double x = floor(n * p + sqrt(n * p * q) * w + (q - p) * (w * w - 1.0) / 6.0 + 0.5);
    x = x > 0.0 ? x : 0.0;
    return binomial_settle((whole)(x < (double)n ? x : (double)n), u, n, p);
  }
  double odds = p / (1.0 - p);
  whole k = 0;
  double term = binomial_pmf(0, n, p);
  double total = term;
  while (total < u && k < n && term > NEGLIGIBLE) {
    term *= odds * (n - k) / (k + 1);
    k += 1;
    total += term;
  }
  return u <= SUMMED_U ? k : binomial_settle(k, u, n, p);
}

__device__ inline whole binomial_quantile(double u, whole n, double p) {
  if (n <= 0 || !(p > 0.0)) return 0;
  if (p >= 1.0) return n;
  if (p <= 0.5) return binomial_quantile_rare(u, n, p);
  return n - binomial_quantile_rare(1.0 - u, n, 1.0 - p);
}
