"""The rasteriser: draws triangles into a buffer of nearest faces, and into depth maps for shadows and occlusion.

All meshes of a scene share one list of vertices and faces. Buffers hold samples, row 0 at the top: `ids` (S, S) int32
is the visible face (-1: none), `near` (S, S) float32 its reciprocal depth, which is linear on the screen.
"""

import math

import numpy as np
from numba import njit

CULL, CUTOUT, LENS = 1, 2, 4  # flags of a mesh: drawn from outside only; has alpha in its texture; is a lens


@njit(cache=True, nogil=True, fastmath=True)
def project(points, view, focal, middle, out):
    """Project points (n, 3) to `out` (n, 3): x, y in samples, and 1 / depth. `view` (3, 4): from `Camera.view`."""
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        right = view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]
        up = view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]
        back = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
        inverse = -1.0 / min(back, -0.1)
        out[i, 0] = middle + focal * right * inverse
        out[i, 1] = middle - focal * up * inverse
        out[i, 2] = inverse


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def span(u, v, step_u, step_v, length):
    """First and last of the steps 0 .. `length` along a row where u, v and 1 - u - v are not negative."""
    first, last = np.float32(0), np.float32(length)
    for value, step in ((u, step_u), (v, step_v), (np.float32(1.0) - u - v, -step_u - step_v)):
        if step > np.float32(1e-12):
            first = max(first, -value / step)
        elif step < np.float32(-1e-12):
            last = min(last, -value / step)
        elif value < 0:
            last = np.float32(-1)
    return int(math.ceil(first)), int(math.floor(last))


@njit(cache=True, nogil=True, fastmath=True)
def rasterise(screen, faces, mesh_of, lots, flags, uv, texels, texture, near, ids, lens):
    """Write the nearest face of every sample to `ids` and `near`.

    `mesh_of` (F,): mesh of each face. Per mesh, `flags` (m,) and `texture` (m, 3) int64: start in `texels`, height,
    width. A face with partial alpha covers some of a pixel's 2 x 2 samples, which `lots` (F,) 0..7 select: different
    cards cover different samples, and the choice stays the same in all frames. Faces of lenses are written to `lens`
    (S, S) int32 where they are nearer than every opaque face drawn before.
    """
    size = near.shape[0]
    for t in range(len(faces)):
        i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
        x0, y0 = screen[i, 0], screen[i, 1]
        x1, y1 = screen[j, 0], screen[j, 1]
        x2, y2 = screen[k, 0], screen[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        m = mesh_of[t]
        if area == 0 or (area > 0 and flags[m] & 1):
            continue
        left = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        right = min(size - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        top = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        bottom = min(size - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        if left > right or top > bottom:
            continue
        inverse = np.float32(1.0) / area
        step_u, step_v = (y1 - y2) * inverse, (y2 - y0) * inverse
        step_w = -step_u - step_v
        zi, zj, zk = screen[i, 2], screen[j, 2], screen[k, 2]
        step_z = step_u * zi + step_v * zj + step_w * zk
        cut, clear = flags[m] & 2, flags[m] & 4
        edge = np.float32(1.001)
        height, width, start = texture[m, 1], texture[m, 2], texture[m, 0]
        beside, below = 4 if width > 1 else 0, 4 * width if height > 1 else 0
        lot = lots[t]
        px = np.float32(left + 0.5)
        for y in range(top, bottom + 1):
            py = np.float32(y + 0.5)
            u = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
            v = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
            first, last = span(u, v, step_u, step_v, right - left)
            if first > last:
                continue
            u += np.float32(first) * step_u
            v += np.float32(first) * step_v
            z = u * zi + v * zj + (np.float32(1.0) - u - v) * zk
            for x in range(left + first, left + last + 1):
                if z > near[y, x]:
                    visible = True
                    if cut:
                        w = np.float32(1.0) - u - v
                        a = u * uv[i, 0] + v * uv[j, 0] + w * uv[k, 0]
                        b = u * uv[i, 1] + v * uv[j, 1] + w * uv[k, 1]
                        sx = min(np.float32(width) - edge, max(np.float32(0), a * np.float32(width) - np.float32(0.5)))
                        sy = (np.float32(1.0) - b) * np.float32(height) - np.float32(0.5)
                        sy = min(np.float32(height) - edge, max(np.float32(0), sy))
                        tx, ty = int(sx), int(sy)
                        fx, fy = sx - np.float32(tx), sy - np.float32(ty)
                        p = start + (ty * width + tx) * 4 + 3
                        q = p + below
                        upper = texels[p] + (np.float32(texels[p + beside]) - np.float32(texels[p])) * fx
                        lower = texels[q] + (np.float32(texels[q + beside]) - np.float32(texels[q])) * fx
                        step = (lot + (x & 1) * 2 + ((x ^ y) & 1)) & 3
                        visible = upper + (lower - upper) * fy > np.float32(20 + step * 56 + ((lot & 4) << 2))
                    if visible:
                        if clear:
                            lens[y, x] = t
                        else:
                            near[y, x] = z
                            ids[y, x] = t
                u += step_u
                v += step_v
                z += step_z


@njit(cache=True, nogil=True, fastmath=True)
def depth_map(points, faces, mesh_of, skip, matrix, depth):
    """Write the smallest distance along a light's rays to `depth` (S, S).

    `matrix` (3, 4): world to x and y in texels, and distance. Meshes with `skip` (m,) set cast no shadow.
    """
    size = depth.shape[0]
    n = len(points)
    place = np.empty((n, 3), np.float32)
    for i in range(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for r in range(3):
            place[i, r] = matrix[r, 0] * x + matrix[r, 1] * y + matrix[r, 2] * z + matrix[r, 3]
    for t in range(len(faces)):
        if skip[mesh_of[t]]:
            continue
        i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
        x0, y0 = place[i, 0], place[i, 1]
        x1, y1 = place[j, 0], place[j, 1]
        x2, y2 = place[k, 0], place[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0:
            continue
        left, right = max(0, int(math.ceil(min(x0, x1, x2)))), min(size - 1, int(math.floor(max(x0, x1, x2))))
        top, bottom = max(0, int(math.ceil(min(y0, y1, y2)))), min(size - 1, int(math.floor(max(y0, y1, y2))))
        inverse = np.float32(1.0) / area
        step_u, step_v = (y1 - y2) * inverse, (y2 - y0) * inverse
        zi, zj, zk = place[i, 2], place[j, 2], place[k, 2]
        step_z = step_u * zi + step_v * zj - (step_u + step_v) * zk
        px = np.float32(left)
        for y in range(top, bottom + 1):
            py = np.float32(y)
            u = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
            v = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
            first, last = span(u, v, step_u, step_v, right - left)
            u += np.float32(first) * step_u
            v += np.float32(first) * step_v
            z = u * zi + v * zj + (np.float32(1.0) - u - v) * zk
            for x in range(left + first, left + last + 1):
                if z < depth[y, x]:
                    depth[y, x] = z
                z += step_z


@njit(cache=True, nogil=True, fastmath=True)
def gather_light(points, normals, matrix, direction, depth, bias, total, weight):
    """Add the cosine towards a direction of the sky to `weight` (n,), and to `total` (n,) where nothing in `depth`
    occludes the point."""
    size = depth.shape[0]
    for i in range(len(points)):
        cosine = normals[i, 0] * direction[0] + normals[i, 1] * direction[1] + normals[i, 2] * direction[2]
        if cosine <= 0:
            continue
        x = points[i, 0] + normals[i, 0] * bias
        y = points[i, 1] + normals[i, 1] * bias
        z = points[i, 2] + normals[i, 2] * bias
        px = int(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3] + 0.5)
        py = int(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3] + 0.5)
        distance = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
        weight[i] += cosine
        if not (0 <= px < size and 0 <= py < size) or distance < depth[py, px] + bias:
            total[i] += cosine


@njit(cache=True, nogil=True, fastmath=True)
def vertex_normals(points, faces, out):
    """Write unit vertex normals to `out` (n, 3), averaged over faces with weights by area."""
    out[:] = 0
    for t in range(len(faces)):
        i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
        ax, ay, az = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
        bx, by, bz = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += x
            out[v, 1] += y
            out[v, 2] += z
    for i in range(len(out)):
        length = math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-12
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length
