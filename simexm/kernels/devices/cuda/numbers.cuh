// Random words and elementary functions: the same bits as simexm/random.py and kernels/numbers/detmath.py.
//
// Only +, -, *, /, sqrt and the bits of a double are used, all defined exactly by IEEE 754; compile without contraction
// (nvcc and NVRTC: --fmad=false, GCC: -ffp-contract=off). The Python code cites the sources of the formulas.
#pragma once

typedef unsigned int word;
typedef unsigned long long word64;
typedef long long whole;

struct Words { word a, b, c, d; };

// Philox4x32-10; only the low 32 bits of each argument count.
__device__ inline Words philox(whole c0, whole c1, whole c2, whole c3, whole k0, whole k1) {
  word x0 = (word)c0, x1 = (word)c1, x2 = (word)c2, x3 = (word)c3, a = (word)k0, b = (word)k1;
  for (int round = 0; round < 10; ++round) {
    word64 p0 = 0xD2511F53ull * x0, p1 = 0xCD9E8D57ull * x2;
    x0 = (word)(p1 >> 32) ^ x1 ^ a;
    x2 = (word)(p0 >> 32) ^ x3 ^ b;
    x1 = (word)p1;
    x3 = (word)p0;
    a += 0x9E3779B9u;
    b += 0xBB67AE85u;
  }
  return {x0, x1, x2, x3};
}

__device__ inline double unit_double(word high, word low) { return (high * 1048576.0 + (low >> 12) + 0.5) * 0x1p-52; }

__device__ inline double unit_float32word(word w) { return (w + 0.5) * 0x1p-32; }

__device__ inline double infinity() { return __longlong_as_double(0x7FF0000000000000ll); }

__device__ inline double not_a_number() { return __longlong_as_double(0x7FF8000000000000ll); }

constexpr double LN2_HI = 6.93147180369123816490e-01, LN2_LO = 1.90821492927058770002e-10;
constexpr double INV_LN2 = 1.44269504088896338700, SQRT_2 = 1.4142135623730951;
constexpr double EXP_LOWEST = -708.0, EXP_HIGHEST = 709.0, TINY = 0x1p-1022;
constexpr double CUT_SIGMA = 4.0, CUT_TAIL = 3.167124183311992e-05;

__device__ inline double exponential(double x) {
  if (x < EXP_LOWEST) return 0.0;
  if (x > EXP_HIGHEST) return infinity();
  if (x != x) return not_a_number();
  double k = floor(x * INV_LN2 + 0.5);
  double scale = __longlong_as_double(((whole)k + 1023) << 52);
  double hi = x - k * LN2_HI;
  double lo = k * LN2_LO;
  double r = hi - lo;
  double t = r * r;
  double p = 6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08);
  double c = r - t * (1.66666666666666019037e-01 + t * (-2.77777777770155933842e-03 + t * p));
  return (1.0 - ((lo - (r * c) / (2.0 - c)) - hi)) * scale;
}

__device__ inline double logarithm(double x) {
  if (!(x >= TINY)) return x >= 0.0 ? -infinity() : not_a_number();
  if (x == infinity()) return x;
  whole bits = __double_as_longlong(x);
  whole exponent = (bits >> 52) - 1023;
  double m = __longlong_as_double((bits & 0xFFFFFFFFFFFFFll) | 0x3FF0000000000000ll);
  if (m > SQRT_2) {
    m *= 0.5;
    exponent += 1;
  }
  double f = m - 1.0, k = (double)exponent;
  double s = f / (2.0 + f);
  double z = s * s;
  double w = z * z;
  double odd = 2.222219843214978396e-01 + w * 1.531383769920937332e-01;
  odd = w * (3.999999999940941908e-01 + w * odd);
  double even = 1.818357216161805012e-01 + w * 1.479819860511658591e-01;
  even = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * even));
  double half_square = 0.5 * f * f;
  return k * LN2_HI - ((half_square - (s * (half_square + (odd + even)) + k * LN2_LO)) - f);
}

__device__ inline double quantile_centre(double q) {
  double r = 0.180625 - q * q;
  double a = ((r * 2.5090809287301226727e3 + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r;
  a = (((a + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r;
  a = (a + 1.3314166789178437745e2) * r + 3.3871328727963666080e0;
  double b = ((r * 5.2264952788528545610e3 + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r;
  b = (((b + 2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r;
  b = (b + 4.2313330701600911252e1) * r + 1.0;
  return q * a / b;
}

__device__ inline double quantile_tail(double root) {
  double r = root - 1.6;
  double a = ((r * 7.74545014278341407640e-4 + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r;
  a = (((a + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r;
  a = (a + 4.63033784615654529590e0) * r + 1.42343711074968357734e0;
  double b = ((r * 1.05075007164441684324e-9 + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r;
  b = (((b + 1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r;
  b = (b + 2.05319162663775882187e0) * r + 1.0;
  return a / b;
}

__device__ inline double quantile_far_tail(double root) {
  double r = root - 5.0;
  double a = ((r * 2.01033439929228813265e-7 + 2.71155556874348757815e-5) * r + 1.24266094738807843860e-3) * r;
  a = (((a + 2.65321895265761230930e-2) * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r;
  a = (a + 5.46378491116411436990e0) * r + 6.65790464350110377720e0;
  double b = ((r * 2.04426310338993978564e-15 + 1.42151175831644588870e-7) * r + 1.84631831751005468180e-5) * r;
  b = (((b + 7.86869131145613259100e-4) * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r;
  b = (b + 5.99832206555887937690e-1) * r + 1.0;
  return a / b;
}

__device__ __noinline__ double normal_quantile(double u) {
  double q = u - 0.5;
  if (fabs(q) <= 0.425) return quantile_centre(q);
  double root = sqrt(-logarithm(q < 0.0 ? u : 1.0 - u));
  double magnitude = root <= 5.0 ? quantile_tail(root) : quantile_far_tail(root);
  return q < 0.0 ? -magnitude : magnitude;
}

__device__ inline double normal_quantile_cut(double u) {
  double x = normal_quantile(CUT_TAIL + u * (1.0 - 2.0 * CUT_TAIL));
  x = x > -CUT_SIGMA ? x : -CUT_SIGMA;
  return x < CUT_SIGMA ? x : CUT_SIGMA;
}
