"""Shading: the colour of a surface at one point.

Subsurface scattering in skin is approximated by wrapped cosines that differ by colour (red is scattered farthest), and
by a softer normal and a softer shadow edge for red, after Penner's pre-integrated skin shading. Hair has the two
highlights of Kajiya and Kay. Other surfaces have a Blinn lobe and a reflection of the surroundings. The constants are
our choice.
"""

import math

import numpy as np
from numba import njit

SKIN, EYE, TEETH, TONGUE, HAIR, CLOTH, PLAIN, GLASS = range(8)
KINDS = {"skin": 0, "eye": 1, "teeth": 2, "tongue": 3, "hair": 4, "cloth": 5, "plain": 6, "glass": 7}
# Numba would widen an operation of a float32 and a plain integer to float64.
ZERO, ONE, TWO, THREE, EPS = np.float32(0), np.float32(1), np.float32(2), np.float32(3), np.float32(1e-9)


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def linear(x):
    """sRGB 0..1 to linear by a cubic fit, within 0.002."""
    return x * (x * (x * np.float32(0.305306011) + np.float32(0.682171111)) + np.float32(0.012522878))


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def shadow(depth, x, y, distance, radius):
    """Visible share of the lamp 0..1 at x, y in texels, averaged with a tent filter of `radius` 1 .. 3 texels."""
    size = depth.shape[0]
    left, right = int(math.ceil(x - radius)), int(math.floor(x + radius))
    top, bottom = int(math.ceil(y - radius)), int(math.floor(y + radius))
    if left < 0 or top < 0 or right >= size or bottom >= size:
        return ONE
    total = weight = ZERO
    for ty in range(top, bottom + 1):
        wy = radius - abs(np.float32(ty) - y)
        for tx in range(left, right + 1):
            w = wy * (radius - abs(np.float32(tx) - x))
            weight += w
            gap = ONE + (depth[ty, tx] - distance) * np.float32(20)
            total += w * min(ONE, max(ZERO, gap))
    return total / weight


@njit(cache=True, nogil=True, fastmath=True, forceinline=True)
def surface(
    t, u, v, faces, mesh_of, kind, color, gloss_of, two_sided, texture, texels, uv, points, normals, tangents,
    attributes, slopes, weights, eye, lamp, matrix, depth, radius, mouth, metal, out,
):  # fmt: skip
    """Write the linear colour of face `t` at barycentric coordinates u, v to `out` (3,).

    Returns the part where it differs from that of the mesh: 2 lips, 3 inside of the mouth; otherwise 0.
    """
    i, j, k = faces[t, 0], faces[t, 1], faces[t, 2]
    w = ONE - u - v
    m = mesh_of[t]
    what = kind[m]
    px = u * points[i, 0] + v * points[j, 0] + w * points[k, 0]
    py = u * points[i, 1] + v * points[j, 1] + w * points[k, 1]
    pz = u * points[i, 2] + v * points[j, 2] + w * points[k, 2]
    nx = u * normals[i, 0] + v * normals[j, 0] + w * normals[k, 0]
    ny = u * normals[i, 1] + v * normals[j, 1] + w * normals[k, 1]
    nz = u * normals[i, 2] + v * normals[j, 2] + w * normals[k, 2]
    s = ONE / math.sqrt(nx * nx + ny * ny + nz * nz + EPS)
    nx, ny, nz = nx * s, ny * s, nz * s
    vx, vy, vz = eye[0] - px, eye[1] - py, eye[2] - pz
    s = ONE / math.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * s, vy * s, vz * s
    if two_sided[m] and nx * vx + ny * vy + nz * vz < 0:
        nx, ny, nz = -nx, -ny, -nz
    open_ = u * attributes[i, 0] + v * attributes[j, 0] + w * attributes[k, 0]  # ambient light 0..1
    lips = u * attributes[i, 1] + v * attributes[j, 1] + w * attributes[k, 1]
    inside = u * attributes[i, 2] + v * attributes[j, 2] + w * attributes[k, 2]

    # Texture, bilinear.
    a = u * uv[i, 0] + v * uv[j, 0] + w * uv[k, 0]
    b = u * uv[i, 1] + v * uv[j, 1] + w * uv[k, 1]
    height, width, start = texture[m, 1], texture[m, 2], texture[m, 0]
    tx = min(np.float32(width - 1.001), max(ZERO, a * np.float32(width) - np.float32(0.5)))
    ty = min(np.float32(height - 1.001), max(ZERO, (ONE - b) * np.float32(height) - np.float32(0.5)))
    cx, cy = int(tx), int(ty)
    fx, fy = tx - np.float32(cx), ty - np.float32(cy)
    right = 4 if width > 1 else 0
    below = 4 * width if height > 1 else 0
    p = start + (cy * width + cx) * 4
    w00, w01, w10, w11 = (ONE - fx) * (ONE - fy), fx * (ONE - fy), (ONE - fx) * fy, fx * fy
    c = np.float32(1 / 255)
    q = p + below
    red = linear((texels[p] * w00 + texels[p + right] * w01 + texels[q] * w10 + texels[q + right] * w11) * c)
    p, q = p + 1, q + 1
    green = linear((texels[p] * w00 + texels[p + right] * w01 + texels[q] * w10 + texels[q + right] * w11) * c)
    p, q = p + 1, q + 1
    blue = linear((texels[p] * w00 + texels[p + right] * w01 + texels[q] * w10 + texels[q + right] * w11) * c)
    red *= color[m, 0]
    green *= color[m, 1]
    blue *= color[m, 2]
    gloss = gloss_of[m]

    # Bump mapping of the skin: the normal is tilted by the slopes of the height along u and v.
    bx, by, bz = nx, ny, nz
    if what == 0 and slopes.shape[0] > 1:
        sx = min(slopes.shape[1] - 1, max(0, int(a * slopes.shape[1])))
        sy = min(slopes.shape[0] - 1, max(0, int((ONE - b) * slopes.shape[0])))
        du, dv = np.float32(slopes[sy, sx, 0]), np.float32(slopes[sy, sx, 1])
        for n in range(3):
            if weights[n] > 0:
                du += weights[n] * slopes[sy, sx, 2 + 2 * n]
                dv += weights[n] * slopes[sy, sx, 3 + 2 * n]
        if du != 0 or dv != 0:
            e1x, e1y, e1z = points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
            e2x, e2y, e2z = points[k, 0] - points[i, 0], points[k, 1] - points[i, 1], points[k, 2] - points[i, 2]
            u1, v1 = uv[j, 0] - uv[i, 0], uv[j, 1] - uv[i, 1]
            u2, v2 = uv[k, 0] - uv[i, 0], uv[k, 1] - uv[i, 1]
            # Gradients of u and v on the face: cross products of edges and normal, divided by the squared double area.
            gx, gy, gz = e1y * e2z - e1z * e2y, e1z * e2x - e1x * e2z, e1x * e2y - e1y * e2x
            area = ONE / max(np.float32(EPS), gx * gx + gy * gy + gz * gz)
            jx, jy, jz = e2y * gz - e2z * gy, e2z * gx - e2x * gz, e2x * gy - e2y * gx
            kx, ky, kz = gy * e1z - gz * e1y, gz * e1x - gx * e1z, gx * e1y - gy * e1x
            f, g = (du * u1 + dv * v1) * area, (du * u2 + dv * v2) * area
            dx, dy, dz = f * jx + g * kx, f * jy + g * ky, f * jz + g * kz
            steep = math.sqrt(dx * dx + dy * dy + dz * dz)
            s = ONE / (ONE + steep * np.float32(0.6))
            bx, by, bz = nx - dx * s, ny - dy * s, nz - dz * s
            s = ONE / math.sqrt(bx * bx + by * by + bz * bz)
            bx, by, bz = bx * s, by * s, bz * s
        gloss *= np.float32(slopes[sy, sx, 8])

    # The key lamp and its shadow.
    lx, ly, lz = lamp[0, 0], lamp[0, 1], lamp[0, 2]
    reach = np.float32(0.06)
    qx, qy, qz = px + nx * reach, py + ny * reach, pz + nz * reach
    seen = shadow(
        depth,
        matrix[0, 0] * qx + matrix[0, 1] * qy + matrix[0, 2] * qz + matrix[0, 3],
        matrix[1, 0] * qx + matrix[1, 1] * qy + matrix[1, 2] * qz + matrix[1, 3],
        matrix[2, 0] * qx + matrix[2, 1] * qy + matrix[2, 2] * qz + matrix[2, 3] - np.float32(0.05),
        radius,
    )
    seen = np.float32(0.06) + np.float32(0.94) * seen  # light of the lamp from nearby surfaces
    # Inside the mouth, light decreases with the distance from the lips.
    buried = ONE
    if what == 2 or what == 3 or inside > np.float32(0.02):
        behind = (mouth[0, 0] - px) * mouth[1, 0] + (mouth[0, 1] - py) * mouth[1, 1] + (mouth[0, 2] - pz) * mouth[1, 2]
        rate = mouth[2, 1] if what == 2 else mouth[2, 0]
        buried = np.float32(math.exp(-rate * max(ZERO, behind - mouth[2, 2])))
        if what == 0:
            buried = ONE + (buried - ONE) * inside
            seen *= buried
            open_ = open_ + (ONE - open_) * inside  # occlusion was measured with the mouth closed
    wr, wg, wb = np.float32(0.1), np.float32(0.1), np.float32(0.1)
    if what == 0:
        wr, wg, wb = np.float32(0.27), np.float32(0.19), np.float32(0.155)
        if inside > 0.5:
            red, green, blue = red * np.float32(0.7), green * np.float32(0.42), blue * np.float32(0.4)
            gloss = np.float32(0.5)
    elif what == 2 or what == 3:
        wr, wg, wb = np.float32(0.4), np.float32(0.35), np.float32(0.3)
    elif what == 1:
        wr, wg, wb = np.float32(0.3), np.float32(0.25), np.float32(0.2)
    elif what == 4:
        wr, wg, wb = np.float32(0.35), np.float32(0.35), np.float32(0.35)
    if metal > 0:
        wr = wg = wb = ZERO
    flat = nx * lx + ny * ly + nz * lz
    bumped = bx * lx + by * ly + bz * lz
    half = np.float32(0.5)
    nl = flat * half + bumped * half
    dr = max(ZERO, (nl + wr) / ((ONE + wr) * (ONE + wr)))
    dg = max(ZERO, (bumped + wg) / ((ONE + wg) * (ONE + wg)))
    db = max(ZERO, (bumped + wb) / ((ONE + wb) * (ONE + wb)))
    sr, sg, sb = seen, seen, seen
    if what == 0 and metal == 0:
        sr = seen + np.float32(0.3) * (math.sqrt(seen) - seen)
        sb = seen * (np.float32(0.75) + np.float32(0.25) * seen)
    upward = by * half + half
    rim = max(ZERO, (bx * lamp[4, 0] + by * lamp[4, 1] + bz * lamp[4, 2] + np.float32(0.1)) / np.float32(1.1))
    rim *= open_
    ar = lamp[3, 0] + (lamp[2, 0] - lamp[3, 0]) * upward
    ag = lamp[3, 1] + (lamp[2, 1] - lamp[3, 1]) * upward
    ab = lamp[3, 2] + (lamp[2, 2] - lamp[3, 2]) * upward
    # Light that is reflected between nearby surfaces takes on their colour.
    occlusion = open_ * open_ * (THREE - TWO * open_) * half + open_ * half
    shade = ONE - occlusion
    kr = ONE - shade * (ONE - np.float32(0.3) * min(ONE, red))
    kg = ONE - shade * (ONE - np.float32(0.3) * min(ONE, green))
    kb = ONE - shade * (ONE - np.float32(0.3) * min(ONE, blue))
    reflect = TWO * (bx * vx + by * vy + bz * vz)
    rx, ry, rz = bx * reflect - vx, by * reflect - vy, bz * reflect - vz
    facing = max(ZERO, min(ONE, bx * vx + by * vy + bz * vz))
    f = ONE - facing
    fresnel = f * f * f * f * f
    sky = ry * half + half
    er = lamp[3, 0] + (lamp[2, 0] - lamp[3, 0]) * sky
    eg = lamp[3, 1] + (lamp[2, 1] - lamp[3, 1]) * sky
    eb = lamp[3, 2] + (lamp[2, 2] - lamp[3, 2]) * sky
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    s = ONE / math.sqrt(hx * hx + hy * hy + hz * hz + EPS)
    hx, hy, hz = hx * s, hy * s, hz * s
    nh = max(ZERO, bx * hx + by * hy + bz * hz)
    cr = red * (lamp[1, 0] * dr * sr + ar * kr + lamp[5, 0] * rim)
    cg = green * (lamp[1, 1] * dg * sg + ag * kg + lamp[5, 1] * rim)
    cb = blue * (lamp[1, 2] * db * sb + ab * kb + lamp[5, 2] * rim)
    if metal > 0 and what != 2 and what != 3:
        # A statue: coloured reflections of lamp and surroundings over a dimmed diffuse colour.
        body = ONE - metal
        spread = np.float32(12) + gloss * np.float32(60)
        behind = max(ZERO, rx * lamp[4, 0] + ry * lamp[4, 1] + rz * lamp[4, 2])
        lobe = seen * nh**spread * gloss * np.float32(2.2) + behind**8
        mirror = (np.float32(0.25) + gloss * half + fresnel) * occlusion
        mr, mg, mb = red * TWO, green * TWO, blue * TWO
        cr = cr * body + metal * mr * (lamp[1, 0] * lobe + er * mirror)
        cg = cg * body + metal * mg * (lamp[1, 1] * lobe + eg * mirror)
        cb = cb * body + metal * mb * (lamp[1, 2] * lobe + eb * mirror)
        lobe = seen * nh**80 * gloss * body * np.float32(0.5)
        cr, cg, cb = cr + lamp[1, 0] * lobe, cg + lamp[1, 1] * lobe, cb + lamp[1, 2] * lobe
    elif what == 4:
        gx = u * tangents[i, 0] + v * tangents[j, 0] + w * tangents[k, 0]
        gy = u * tangents[i, 1] + v * tangents[j, 1] + w * tangents[k, 1]
        gz = u * tangents[i, 2] + v * tangents[j, 2] + w * tangents[k, 2]
        s = ONE / math.sqrt(gx * gx + gy * gy + gz * gz + EPS)
        along = (gx * hx + gy * hy + gz * hz) * s
        shift = (red + green + blue) * np.float32(0.1)
        first, second = along + np.float32(0.06), along - np.float32(0.1) - shift
        one = math.sqrt(max(ZERO, ONE - first * first)) ** 70
        two = math.sqrt(max(ZERO, ONE - second * second)) ** 18
        lit = seen * max(ZERO, flat * half + half) * gloss
        cr += lit * lamp[1, 0] * (np.float32(0.16) * one + np.float32(0.9) * two * red)
        cg += lit * lamp[1, 1] * (np.float32(0.16) * one + np.float32(0.9) * two * green)
        cb += lit * lamp[1, 2] * (np.float32(0.16) * one + np.float32(0.9) * two * blue)
    elif what == 1:
        # A wet eye: the reflection of the lamp in the cornea, and of the surroundings at grazing angles.
        disc = (rx * lamp[7, 0] + ry * lamp[7, 1] + rz * lamp[7, 2] - lamp[6, 0]) / ((ONE - lamp[6, 0]) * half)
        disc = min(ONE, max(ZERO, disc)) * (half + half * seen) * gloss * np.float32(1.6)
        glaze = (np.float32(0.03) + np.float32(0.35) * fresnel) * occlusion
        cr += lamp[1, 0] * disc + er * glaze
        cg += lamp[1, 1] * disc + eg * glaze
        cb += lamp[1, 2] * disc + eb * glaze
    else:
        wet = gloss
        if what == 0:
            wet = gloss + lips * np.float32(0.18)
        broad, tight = nh**14, nh ** (np.float32(24) + wet * np.float32(110))
        lobe = np.float32(0.09) * broad + wet * np.float32(0.6) * tight
        lobe *= (1 - np.float32(0.7) * facing) * (np.float32(0.4) + wet)
        lobe *= seen * max(ZERO, min(ONE, flat * np.float32(4)))
        if what == 5:
            lobe *= np.float32(0.25)
        glaze = (np.float32(0.012) + np.float32(0.3) * fresnel) * (np.float32(0.3) + wet) * occlusion * buried
        cr += lamp[1, 0] * lobe + er * glaze
        cg += lamp[1, 1] * lobe + eg * glaze
        cb += lamp[1, 2] * lobe + eb * glaze
    if what == 2 or what == 3 or inside > np.float32(0.02):
        cr, cg, cb = cr * buried, cg * buried, cb * buried
    out[0], out[1], out[2] = cr, cg, cb
    if what == 0:
        if inside > half:
            return 3
        if lips > half:
            return 2
    return 0
