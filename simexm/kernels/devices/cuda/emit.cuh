// Proteins in voxels, dyes on proteins, and positions of dyes, in two launches: kernels/emission/emit.py and points.py.
//
// One thread per sub-cell. `count_emitters` counts the emitters of each; after a cumulative sum, `write_emitters` writes them
// in the order of the CPU: plane, row, part, column.
#pragma once
#include "draws.cuh"
#include "regions.cuh"

constexpr whole POISSON = 0, POINTS_OF_CLUMP = 8, MOST_DYES_BITS = 12, LARGE = 4096;
constexpr double ROUNDING = 1e-15;

// Layout of `array_device.EMISSION`; all fields have 8 bytes, so that every compiler agrees on it.
struct Emission {
  double mean, dyes, kept;    // of the law; mean of a sub-cell
  double most;                // upper bound of the mean of any sub-cell
  Point sigma, voxel_nm, size;  // linker; voxel; sub-cell
  whole by_surface, region_bits, bits_bytes, kind, clumped;
  whole marked, identified;  // kind in identities, and whether they are written
  whole by_depth, by_grey;   // whether these factors apply
  Point grey;                // share of the mean at grey value 0, its change per value, and its least
  Triple subcells;
  Key number, place, linker;
  Triple origin, specimen;  // first voxel of the array and of the specimen, in the volume
  Triple shape;             // of the arrays
  Triple lo, hi;            // box of the array that emits
  Triple own_lo, own_hi;    // box of the array whose dyes are counted
};

struct Emitters {
  double *z, *y, *x;
  int *weight, *cell;
  unsigned char *own;
  int *identity;  // 6 per emitter; null if no stage needs them
};

// What multiplies the mean of the law in each voxel: `points.Factors`.
struct Factors {
  const double *cell, *depth;
  const float *grey;
};

// Factor of the law's mean in voxel (z, y, x) of the arrays.
__device__ inline double factor_of(const Factors &factors, const Emission &law, int cell, whole z, whole y, whole x) {
  double factor = law.region_bits != 0 ? factors.cell[cell] : 1.0;
  if (law.by_depth) {
    double a = factors.depth[z], b = factors.depth[law.shape.z + y], c = factors.depth[law.shape.z + law.shape.y + x];
    double nearer = b > c ? b : c;
    factor *= a > nearer ? a : nearer;
  }
  if (law.by_grey) {
    double share = law.grey.z + law.grey.y * (double)factors.grey[(z * law.shape.y + y) * law.shape.x + x];
    share = share > law.grey.x ? share : law.grey.x;
    factor *= share < 1.0 ? share : 1.0;
  }
  return factor;
}

// Total number of dyes on `proteins` proteins.
__device__ inline whole dyes_of(double u, const Emission &law, whole proteins) {
  if (law.kind == POISSON) return poisson_quantile(u, law.dyes * law.kept * proteins);
  whole n = (whole)law.dyes * proteins;
  if (law.kept >= 1.0) return n;
  if (n <= LARGE) return binomial_quantile(u, n, law.kept);
  double mean = n * law.kept;
  double draw = floor(mean + sqrt(mean * (1.0 - law.kept)) * normal_quantile_cut(u) + 0.5);
  draw = draw > 0.0 ? draw : 0.0;
  return (whole)(draw < (double)n ? draw : (double)n);
}

__device__ inline void place_emitter(const Emitters &out, whole n, Point base, Words words, Point size, Point sigma,
                                     Words linker, whole mirror, whole weight, int cell, unsigned char own) {
  double az = unit_float32word(words.a), ay = unit_float32word(words.b), ax = unit_float32word(words.c);
  bool fz = mirror & 4, fy = mirror & 2, fx = mirror & 1;
  double z = base.z + (fz ? 1.0 - az : az) * size.z;
  double y = base.y + (fy ? 1.0 - ay : ay) * size.y;
  double x = base.x + (fx ? 1.0 - ax : ax) * size.x;
  if (sigma.z > 0.0 || sigma.y > 0.0 || sigma.x > 0.0) {
    z += (fz ? -sigma.z : sigma.z) * normal_quantile_cut(unit_float32word(linker.a));
    y += (fy ? -sigma.y : sigma.y) * normal_quantile_cut(unit_float32word(linker.b));
    x += (fx ? -sigma.x : sigma.x) * normal_quantile_cut(unit_float32word(linker.c));
  }
  out.z[n] = z;
  out.y[n] = y;
  out.x[n] = x;
  out.weight[n] = (int)weight;
  out.cell[n] = cell;
  out.own[n] = own;
}

__device__ inline void identify(const Emitters &out, whole n, whole z, whole y, whole x, whole part, whole draw, whole kind) {
  if (!out.identity) return;
  int *row = out.identity + 6 * n;
  row[0] = (int)z, row[1] = (int)y, row[2] = (int)x;
  row[3] = (int)part, row[4] = (int)draw, row[5] = (int)kind;
}

// Count the emitters of sub-cell `at` (in the order above); with `WRITE`, also write them from index `n`.
template <bool WRITE>
__device__ inline whole sub_cell(whole at, const Emission &law, const int *index, const void *regions,
                                 const Factors &factors, const double *weights, const Emitters &out, whole n,
                                 word64 *dyes_of_cell) {
  whole width = law.hi.x - law.lo.x, rows = law.hi.y - law.lo.y;
  whole parts = law.subcells.z * law.subcells.y * law.subcells.x;
  whole x = law.lo.x + at % width, sub = at / width % parts;
  whole y = law.lo.y + at / width / parts % rows, z = law.lo.z + at / width / parts / rows;
  whole voxel = (z * law.shape.y + y) * law.shape.x + x;
  if (law.region_bits != 0 && ((bits_of(regions, voxel, law.bits_bytes) & law.region_bits) == 0 || factors.cell[index[voxel]] == 0.0)) return 0;
  whole gz = law.origin.z + z, gy = law.origin.y + y, gx = law.origin.x + x;
  // each sub-cell has its own stream: counter = voxel, key = the layer's key, modified by the sub-cell
  Words drawn = philox(gz, gy, gx, 0, law.number.a, law.number.b ^ sub);
  double u = unit_double(drawn.a, drawn.b);
  if (u < 1.0 - law.most - ROUNDING) return 0;
  double mean = law.mean * factor_of(factors, law, index[voxel], z, y, x);
  if (law.by_surface) {
    mean *= surface_um2(index, law.shape, z, y, x, weights);
    if (u < 1.0 - mean - ROUNDING) return 0;
  }
  whole proteins = poisson_quantile(u, mean);
  if (proteins == 0) return 0;

  int cell = index[voxel];
  unsigned char own = z >= law.own_lo.z && z < law.own_hi.z && y >= law.own_lo.y && y < law.own_hi.y &&
                      x >= law.own_lo.x && x < law.own_hi.x;
  whole across = law.subcells.x, slice = law.subcells.y * law.subcells.x;
  Point base = {(gz - law.specimen.z) * law.voxel_nm.z + sub / slice * law.size.z,
                (gy - law.specimen.y) * law.voxel_nm.y + sub / across % law.subcells.y * law.size.y,
                (gx - law.specimen.x) * law.voxel_nm.x + sub % across * law.size.x};
  bool linked = law.sigma.z > 0.0 || law.sigma.y > 0.0 || law.sigma.x > 0.0;
  Words linker = {0, 0, 0, 0};
  whole first = n, here = 0;
  if (law.clumped) {
    here = dyes_of(unit_double(drawn.c, drawn.d), law, proteins);
    whole points = here < POINTS_OF_CLUMP ? here : POINTS_OF_CLUMP;
    if (!WRITE) return points;
    Words words = philox(gz, gy, gx, 0, law.place.a, law.place.b ^ sub);
    if (linked) linker = philox(gz, gy, gx, 0, law.linker.a, law.linker.b ^ sub);
    for (whole p = 0; p < points; ++p) {
      whole share = here / points + (p < here % points ? 1 : 0);
      identify(out, n, gz, gy, gx, sub, p, law.marked);
      place_emitter(out, n++, base, words, law.size, law.sigma, linker, p / 2 ^ (p % 2 ? 7 : 0), share, cell, own);
    }
  } else {
    for (whole p = 0; p < proteins; ++p) {
      Words words = philox(gz, gy, gx, p, law.place.a, law.place.b ^ sub);
      whole dyes = dyes_of(unit_float32word(words.d), law, 1);
      here += dyes;
      if (!WRITE) {
        n += linked ? dyes : dyes > 0;
      } else if (linked) {
        for (whole d = 0; d < dyes; ++d) {
          linker = philox(gz, gy, gx, p << MOST_DYES_BITS | d, law.linker.a, law.linker.b ^ sub);
          identify(out, n, gz, gy, gx, sub, p << MOST_DYES_BITS | d, law.marked);
          place_emitter(out, n++, base, words, law.size, law.sigma, linker, 0, 1, cell, own);
        }
      } else if (dyes > 0) {
        identify(out, n, gz, gy, gx, sub, p << MOST_DYES_BITS, law.marked);
        place_emitter(out, n++, base, words, law.size, law.sigma, linker, 0, dyes, cell, own);
      }
    }
  }
  if (WRITE && own) atomicAdd(dyes_of_cell + cell, (word64)here);
  return n - first;
}

extern "C" __global__ void count_emitters(Emission law, const int *index, const void *regions,
                                          const double *cell, const double *depth, const float *grey,
                                          const double *weights, whole subcells, int *counts) {
  EACH(i, subcells) {
    counts[i] = (int)sub_cell<false>(i, law, index, regions, {cell, depth, grey}, weights, Emitters{}, 0, nullptr);
  }
}

// Write the emitters of the sub-cells first:stop; `ends` is the cumulative sum of counts, `base` the sum before `first`.
extern "C" __global__ void write_emitters(Emission law, const int *index, const void *regions,
                                          const double *cell, const double *depth, const float *grey,
                                          const double *weights, const whole *ends, whole first, whole stop, whole base,
                                          double *z, double *y, double *x, int *weight, int *cell_of, unsigned char *own,
                                          int *identity, word64 *dyes_of_cell) {
  Emitters out = {z, y, x, weight, cell_of, own, law.identified ? identity : nullptr};
  EACH(i, stop - first) {
    whole at = first + i;
    whole before = at > 0 ? ends[at - 1] : 0;
    if (ends[at] > before) {
      sub_cell<true>(at, law, index, regions, {cell, depth, grey}, weights, out, before - base, dyes_of_cell);
    }
  }
}
