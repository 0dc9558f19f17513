"""Resolves samples to pixels: groups them by surface, shades each once, and adds tone, lenses and background."""

import math

import numpy as np
from numba import njit

from .color import encode
from .shade import EPS, HAIR, ONE, TWO, ZERO, surface

ENCODE = encode(np.linspace(0, 1, 4097))


@njit(cache=True, nogil=True, fastmath=True)
def glare(t, faces, points, eye, lamp):
    """Reflection of a lens as a multiple of the sky: stronger at grazing angles, with a highlight of the key lamp."""
    i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
    ax, ay, az = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
    bx, by, bz = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    vx, vy, vz = eye[0] - points[i, 0], eye[1] - points[i, 1], eye[2] - points[i, 2]
    s = ONE / math.sqrt((nx * nx + ny * ny + nz * nz) * (vx * vx + vy * vy + vz * vz) + EPS * EPS)
    facing = (nx * vx + ny * vy + nz * vz) * s
    fresnel = (ONE - min(ONE, abs(facing))) ** 5
    s = TWO * (nx * vx + ny * vy + nz * vz) / (nx * nx + ny * ny + nz * nz + EPS * EPS)
    rx, ry, rz = nx * s - vx, ny * s - vy, nz * s - vz
    s = ONE / math.sqrt(rx * rx + ry * ry + rz * rz)
    lit = max(ZERO, (rx * lamp[0, 0] + ry * lamp[0, 1] + rz * lamp[0, 2]) * s)
    return np.float32(0.05) + np.float32(0.5) * fresnel + np.float32(0.5) * lit**60


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def tone(x):
    """Tone curve from exposed to displayed linear light: linear in the shadows, with a soft shoulder."""
    return x * (ONE + x * np.float32(0.11)) / (ONE + x * np.float32(0.5)) * np.float32(1.18)


@njit(cache=True, nogil=True, fastmath=True)
def picture(
    ids, near, lens, screen, factor, exposure, background, encode, part_of,
    faces, mesh_of, kind, color, gloss_of, two_sided, texture, texels, uv, points, normals, tangents, attributes,
    slopes, weights, eye, lamp, matrix, depth, radius, mouth, metal, frame, parts,
):  # fmt: skip
    """Fill `frame` (s, s, 3) uint8 sRGB and `parts` (s, s) uint8 from buffers of s * factor samples a side.

    Samples of a pixel are one surface if they are of the same mesh and, except for hair, within 4 mm of depth.
    """
    size = frame.shape[0]
    count = factor * factor
    tone_of = np.empty(3, np.float32)
    done = np.empty(count, np.bool_)
    share = np.float32(1.0 / count)
    for y in range(size):
        for x in range(size):
            r = g = b = ZERO
            best, part = 0, 0
            for n in range(count):
                done[n] = False
            for n in range(count):
                if done[n]:
                    continue
                sy, sx = y * factor + n // factor, x * factor + n % factor
                t = ids[sy, sx]
                z = near[sy, sx]
                hits = 0
                for o in range(n, count):
                    if done[o]:
                        continue
                    oy, ox = y * factor + o // factor, x * factor + o % factor
                    other = ids[oy, ox]
                    same = other == t
                    if not same and other >= 0 and t >= 0 and mesh_of[other] == mesh_of[t]:
                        same = kind[mesh_of[t]] == HAIR or abs(ONE / near[oy, ox] - ONE / z) < np.float32(0.04)
                    if same:
                        done[o] = True
                        hits += 1
                w = np.float32(hits) * share
                if t < 0:
                    r += w * background[y, x, 0]
                    g += w * background[y, x, 1]
                    b += w * background[y, x, 2]
                    if hits > best:
                        best, part = hits, 0
                    continue
                i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
                x0, y0, x1, y1 = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1]
                x2, y2 = screen[k, 0], screen[k, 1]
                inverse = ONE / ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
                ax, ay = sx + np.float32(0.5), sy + np.float32(0.5)
                p = ((x1 - ax) * (y2 - ay) - (x2 - ax) * (y1 - ay)) * inverse * screen[i, 2]
                q = ((x2 - ax) * (y0 - ay) - (x0 - ax) * (y2 - ay)) * inverse * screen[j, 2]
                p, q = p / z, q / z
                found = surface(
                    t, p, q, faces, mesh_of, kind, color, gloss_of, two_sided, texture, texels, uv, points, normals,
                    tangents, attributes, slopes, weights, eye, lamp, matrix, depth, radius, mouth, metal, tone_of,
                )  # fmt: skip
                r += w * tone(tone_of[0] * exposure[0])
                g += w * tone(tone_of[1] * exposure[1])
                b += w * tone(tone_of[2] * exposure[2])
                if hits > best:
                    best = hits
                    part = found if found > 0 else part_of[mesh_of[t]]
            clear = -1
            hits = 0
            for n in range(count):
                t = lens[y * factor + n // factor, x * factor + n % factor]
                if t >= 0:
                    clear, hits = t, hits + 1
            if hits:
                w = np.float32(hits) * share
                shine = glare(clear, faces, points, eye, lamp) * exposure[0] * w
                m = mesh_of[clear]
                r = r * (ONE - w * (ONE - color[m, 0])) + shine * lamp[2, 0]
                g = g * (ONE - w * (ONE - color[m, 1])) + shine * lamp[2, 1]
                b = b * (ONE - w * (ONE - color[m, 2])) + shine * lamp[2, 2]
            parts[y, x] = part
            frame[y, x, 0] = encode[int(min(ONE, max(ZERO, r)) * 4096)]
            frame[y, x, 1] = encode[int(min(ONE, max(ZERO, g)) * 4096)]
            frame[y, x, 2] = encode[int(min(ONE, max(ZERO, b)) * 4096)]
