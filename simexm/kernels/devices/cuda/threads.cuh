// A kernel goes over its elements in strides of the grid, so that any grid does the work, and one thread on a host as well.
#pragma once

#define EACH(i, count) \
  for (whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += (whole)gridDim.x * blockDim.x)

struct Triple { whole z, y, x; };
struct Point { double z, y, x; };
struct Key { whole a, b; };
