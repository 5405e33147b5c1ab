// What CUDA gives a kernel, for one thread of a host: included before the kernels' text, which is compiled as it stands.
#pragma once
#include <cmath>
#include <cstring>

#define __global__
#define __device__
#define __noinline__ inline __attribute__((noinline))

struct Index { unsigned x, y, z; };

// Of the thread that runs; a test sets them to walk through a grid.
extern "C" {
Index blockIdx = {0, 0, 0}, threadIdx = {0, 0, 0}, blockDim = {1, 1, 1}, gridDim = {1, 1, 1};
}

inline double __longlong_as_double(long long bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline long long __double_as_longlong(double x) {
  long long bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

template <typename T>
inline T atomicAdd(T *at, T more) {
  T before = *at;
  *at += more;
  return before;
}

using std::fabs;
using std::floor;
using std::sqrt;
