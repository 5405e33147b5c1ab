// Grid-stride loop: any grid size works, and so does one thread on a host.
#pragma once

#define EACH(i, count) \
  for (whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += (whole)gridDim.x * blockDim.x)

struct Triple { whole z, y, x; };
struct Point { double z, y, x; };
struct Key { whole a, b; };
