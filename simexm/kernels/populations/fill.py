"""Fill voxels with the ids of somata and of the pieces of processes. A voxel belongs to what holds its centre."""

from __future__ import annotations

import math

from simexm.compiled import njit


@njit(cache=True, nogil=True)
def fill_somata(ids, centres, radii, start, voxel, out):  # type: ignore[no-untyped-def]
    """Write the id of each ellipsoid (centres and half axes z, y, x, in um) where there is none yet; `start` is out's corner."""
    nz, ny, nx = out.shape
    for i in range(ids.size):
        cz, cy, cx = centres[i]
        rz, ry, rx = radii[i]
        z0 = max(0, math.ceil((cz - rz) / voxel[0] - 0.5) - start[0])
        z1 = min(nz, math.floor((cz + rz) / voxel[0] - 0.5) + 1 - start[0])
        y0 = max(0, math.ceil((cy - ry) / voxel[1] - 0.5) - start[1])
        y1 = min(ny, math.floor((cy + ry) / voxel[1] - 0.5) + 1 - start[1])
        x0 = max(0, math.ceil((cx - rx) / voxel[2] - 0.5) - start[2])
        x1 = min(nx, math.floor((cx + rx) / voxel[2] - 0.5) + 1 - start[2])
        for z in range(z0, z1):
            dz = ((z + start[0] + 0.5) * voxel[0] - cz) / rz
            for y in range(y0, y1):
                dy = ((y + start[1] + 0.5) * voxel[1] - cy) / ry
                for x in range(x0, x1):
                    dx = ((x + start[2] + 0.5) * voxel[2] - cx) / rx
                    if dz * dz + dy * dy + dx * dx <= 1.0 and out[z, y, x] == 0:
                        out[z, y, x] = ids[i]


@njit(cache=True, nogil=True)
def fill_pieces(ids, pieces, start, voxel, out):  # type: ignore[no-untyped-def]
    """Write the id of each piece, a cone with round ends, where there is none yet; see `trees.grow`."""
    nz, ny, nx = out.shape
    for i in range(ids.size):
        az, ay, ax, bz, by, bx, ra, rb = pieces[i]
        r = max(ra, rb)
        z0 = max(0, math.ceil((min(az, bz) - r) / voxel[0] - 0.5) - start[0])
        z1 = min(nz, math.floor((max(az, bz) + r) / voxel[0] - 0.5) + 1 - start[0])
        y0 = max(0, math.ceil((min(ay, by) - r) / voxel[1] - 0.5) - start[1])
        y1 = min(ny, math.floor((max(ay, by) + r) / voxel[1] - 0.5) + 1 - start[1])
        x0 = max(0, math.ceil((min(ax, bx) - r) / voxel[2] - 0.5) - start[2])
        x1 = min(nx, math.floor((max(ax, bx) + r) / voxel[2] - 0.5) + 1 - start[2])
        lz, ly, lx = bz - az, by - ay, bx - ax
        length2 = lz * lz + ly * ly + lx * lx
        for z in range(z0, z1):
            pz = (z + start[0] + 0.5) * voxel[0] - az
            for y in range(y0, y1):
                py = (y + start[1] + 0.5) * voxel[1] - ay
                for x in range(x0, x1):
                    if out[z, y, x] != 0:
                        continue
                    px = (x + start[2] + 0.5) * voxel[2] - ax
                    along = min(1.0, max(0.0, (pz * lz + py * ly + px * lx) / length2))
                    dz, dy, dx = pz - along * lz, py - along * ly, px - along * lx
                    limit = ra + along * (rb - ra)
                    if dz * dz + dy * dy + dx * dx <= limit * limit:
                        out[z, y, x] = ids[i]
