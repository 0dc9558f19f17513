"""A scene: a person's meshes, textures, light and camera as the flat arrays that the rasteriser reads.

A `Scene` is built once per clip; `focus` adapts it to its camera, and `pose` writes the positions and normals of a
frame.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from . import assets, organs, raster
from .assets import unit_index
from .head import Head, Posed
from .light import Camera, Light, direction
from .mesh import Attachment, Material, Mesh, Overrides, Part, triple
from .shade import KINDS
from .skin import SkinMaps

SHADOW_SIZE, SHADOW_SPAN = 144, 5.4  # side of the lamp's depth map in texels and dm
OCCLUSION_DIRECTIONS, OCCLUSION_SIZE, OCCLUSION_SPAN = 40, 128, 5.6  # number of depth maps and their sides

STRANDS = (Part.HAIR, Part.BEARD)


def reduce(texture: np.ndarray, factors: tuple[int, int]) -> np.ndarray:
    """Shrink a texture (H, W, 4) uint8 by averaging cells of `factors` rows and columns, colours weighted by alpha."""
    rows, columns = factors
    height, width = texture.shape[0] // rows, texture.shape[1] // columns
    if (rows, columns) == (1, 1):
        return texture
    cells = texture[: height * rows, : width * columns].reshape(height, rows, width, columns, 4).astype(np.float32)
    alpha = cells[..., 3:]
    color = (cells[..., :3] * (alpha + 0.5)).sum((1, 3)) / (alpha + 0.5).sum((1, 3))
    return np.round(np.concatenate([color, alpha.mean((1, 3))], 2)).astype(np.uint8)


def slopes(surface: SkinMaps, factors: tuple[int, int]) -> np.ndarray:
    """(H, W, 9) float32: derivatives by u and v, in dm, of the height and of three creases, and the gloss.

    The maps are first averaged over cells of `factors` rows and columns.
    """
    maps = np.concatenate([surface.height[..., None], surface.creases, surface.gloss[..., None]], 2)
    rows, columns = factors
    height, width = len(maps) // rows, len(maps) // columns
    maps = maps[: height * rows, : width * columns].reshape(height, rows, width, columns, 5).mean((1, 3))
    out = np.empty((height, width, 9), np.float32)
    for n in range(4):
        dy, dx = np.gradient(maps[..., n] / 100)
        out[..., 2 * n], out[..., 2 * n + 1] = dx * width, -dy * height
    out[..., 8] = maps[..., 4]
    return out


@dataclass
class Scene:
    """Person, light, camera and background of a clip.

    `meshes`: hair, clothes and accessories of this person. `background` (s, s, 3) float32 linear, of the size of the
    picture. `overrides`: one material for the whole person, for statues.
    """

    head: Head
    surface: SkinMaps
    eye_texture: np.ndarray
    teeth_textures: tuple[np.ndarray, np.ndarray]
    tongue_texture: np.ndarray
    light: Light
    camera: Camera
    background: np.ndarray
    meshes: list[Mesh] = field(default_factory=list)
    overrides: Overrides | None = None
    prop_shift: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))  # dm, of this frame

    def __post_init__(self) -> None:
        data = assets.load()
        self.organs: list[organs.Eye | organs.Organ] = [
            *organs.eyes(self.head, self.eye_texture),
            *organs.teeth(self.head, self.teeth_textures),
            organs.tongue(self.head, self.tongue_texture),
        ]
        surface, o = self.surface, self.overrides
        albedo = surface.albedo if o is None else o.albedo
        skin = Material("skin", texture=albedo, gloss=1.0)
        rest = self.head.neutral[data.skin_base]
        self.skin = Mesh("skin", Part.SKIN, data.skin_faces, data.skin_uv, skin, rest=rest)
        pieces = [self.skin, *(g.mesh for g in self.organs), *self.meshes]
        if o is not None:
            pieces = [self.skin, *(o.apply(m) for m in pieces[1:])]
        self.pieces = pieces
        self.starts = np.concatenate([[0], np.cumsum([len(m.uv) for m in pieces])])
        faces = [m.faces.astype(np.int32) + s for m, s in zip(pieces, self.starts, strict=False)]
        self.faces = np.ascontiguousarray(np.concatenate(faces), np.int32)
        self.mesh_of = np.repeat(np.arange(len(pieces), dtype=np.int32), [len(m.faces) for m in pieces])
        edges = np.concatenate([self.faces[:, :2], self.faces[:, 1:]])
        graph = sparse.csr_matrix((np.ones(len(edges)), edges.T), (self.starts[-1], self.starts[-1]))
        _, card = csgraph.connected_components(graph, directed=False)
        self.lots = (card[self.faces[:, 0]].astype(np.uint32) * np.uint32(2654435761) >> np.uint32(29)).astype(np.int32)
        self.uv = np.ascontiguousarray(np.concatenate([m.uv for m in pieces]), np.float32)
        n = self.starts[-1]
        self.points, self.normals = np.empty((n, 3), np.float32), np.empty((n, 3), np.float32)
        self.tangents = np.zeros((n, 3), np.float32)
        self._rest_normals = [self._normals(m) for m in pieces]
        self.attributes = np.zeros((n, 3), np.float32)
        skin_end = self.starts[1]
        self.attributes[:skin_end, 1] = data.region("lips")
        self.attributes[:skin_end, 2] = data.region("inside_mouth")
        self.pose(self.head.pose(np.zeros(len(assets.UNITS))))
        self.no_shadow = np.array([m.material.kind in ("eye", "teeth", "tongue", "glass") for m in pieces])
        if o is not None:  # a statue's hair is one solid mass
            self.no_shadow |= np.array([m.part in STRANDS for m in pieces])
        self.attributes[:, 0] = self._occlusion()
        self._focused: Camera | None = None

    def focus(self) -> None:
        """Adapt the resolution of textures and the order of faces to the camera, if it has changed."""
        if self._focused == self.camera:
            return
        self._focused = self.camera
        self.pose(self.head.pose(np.zeros(len(assets.UNITS))))
        self._tables()
        self._sort()
        side = len(self.surface.height)
        self.slopes = slopes(self.surface, self._density(0, side, side, 1))

    def _sort(self) -> None:
        """Sort the faces of every mesh by their distance to the camera at rest.

        In a mesh of many layers, such as hair, most faces are then rejected by depth before their texture is read.
        """
        distance = np.linalg.norm(self.points[self.faces].mean(1) - np.array(self.camera.eye), axis=1)
        order = np.lexsort((distance, self.mesh_of))
        self.faces, self.lots = np.ascontiguousarray(self.faces[order]), self.lots[order]

    def _tables(self) -> None:
        """Set the arrays of all meshes (flags, kind, colour, gloss, place of the texture) and join the textures."""
        flags: list[int] = []
        places, runs, place = [], [], 0
        for m in self.pieces:
            texture = m.material.texture
            if texture is None:
                texture = np.full((1, 1, 4), 255, np.uint8)
            if texture.shape[2] == 3:
                texture = np.concatenate([texture, np.full((*texture.shape[:2], 1), 255, np.uint8)], 2)
            cut = raster.CUTOUT if (texture[..., 3] < 250).any() else 0
            texture = reduce(texture, self._density(len(flags), len(texture), texture.shape[1], 2 if cut else 1))
            clear = raster.LENS if m.material.kind == "glass" else 0
            flags.append(cut | clear | (0 if m.material.two_sided else raster.CULL))
            places.append((place, *texture.shape[:2]))
            runs.append(np.ascontiguousarray(texture, np.uint8).ravel())
            place += runs[-1].size
        self.flags, self.texture = np.array(flags, np.int32), np.array(places, np.int64)
        self.texels = np.concatenate(runs)
        self.kind = np.array([KINDS[m.material.kind] for m in self.pieces], np.int32)
        self.color = np.array([m.material.color for m in self.pieces], np.float32)
        self.gloss = np.array([m.material.gloss for m in self.pieces], np.float32)
        self.two_sided = np.array([m.material.two_sided for m in self.pieces])
        self.part = np.array([int(m.part) for m in self.pieces], np.uint8)

    def _density(self, mesh: int, height: int, width: int, samples: int) -> tuple[int, int]:
        """Factors (rows, columns), 1 or more, by which a texture is finer than `samples` per pixel of the picture."""
        size = len(self.background)
        screen = np.empty_like(self.points)
        raster.project(
            self.points, self.camera.view(), np.float32(self.camera.focal(size)), np.float32(size / 2), screen
        )
        faces = self.faces[self.mesh_of == mesh]
        uv, place = self.uv[faces], screen[faces, :2]
        along, pixels = uv[:, 1:] - uv[:, :1], place[:, 1:] - place[:, :1]
        area = np.abs(pixels[:, 0, 0] * pixels[:, 1, 1] - pixels[:, 0, 1] * pixels[:, 1, 0])
        used = area > 0.02
        if not used.any():
            return 1, 1
        # Pixels per unit of u and of v: the columns of the map from texture to picture.
        determinant = along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0]
        used &= np.abs(determinant) > 1e-9
        inverse = 1 / np.where(used, determinant, 1)[:, None]
        over_u = (pixels[:, 0] * along[:, 1, 1:] - pixels[:, 1] * along[:, 0, 1:]) * inverse
        over_v = (pixels[:, 1] * along[:, 0, :1] - pixels[:, 0] * along[:, 1, :1]) * inverse
        factors = []
        for texels, over in ((height, over_v), (width, over_u)):
            ratio = texels / (samples * np.median(np.linalg.norm(over[used], axis=1)))
            factors.append(int(np.clip(round(ratio), 1, max(1, texels // 4))))
        return factors[0], factors[1]

    def _normals(self, mesh: Mesh) -> np.ndarray | None:
        """Normals (n, 3) at rest of a rigid mesh; None where they are computed from the positions of each frame."""
        if isinstance(mesh.rest, Attachment) or mesh.part in (Part.SKIN, Part.EYES, Part.TEETH, Part.TONGUE):
            return None
        out = np.empty((len(mesh.uv), 3), np.float32)
        raster.vertex_normals(np.ascontiguousarray(mesh.rest, np.float32), mesh.faces.astype(np.int32), out)
        return out

    def pose(self, posed: Posed) -> None:
        """Write the `points`, `normals` and `tangents` of a frame."""
        data = assets.load()
        for n, mesh in enumerate(self.pieces):
            s = slice(self.starts[n], self.starts[n + 1])
            if n == 0:
                self.points[s], self.normals[s] = posed.vertices[data.skin_base], posed.normals[data.skin_base]
                continue
            known = None
            if n <= len(self.organs):
                self.points[s], known = self.organs[n - 1].place(posed)
            else:
                self.points[s] = posed.place(mesh)
                if mesh.part == Part.PROP:
                    self.points[s] += self.prop_shift
            if known is not None:
                self.normals[s] = known
            elif self.overrides is not None and mesh.part in STRANDS:  # normals of a sphere: one solid mass
                outward = self.points[s] - posed.rotate(np.array([[0, self.head.middle + 0.1, 0.35]], np.float32))
                self.normals[s] = outward / np.linalg.norm(outward, axis=1, keepdims=True)
            elif (at_rest := self._rest_normals[n]) is not None:
                self.normals[s] = posed.rotate_direction(at_rest, mesh.neck)
            else:
                raster.vertex_normals(self.points[s], mesh.faces, self.normals[s])
            if mesh.tangent is not None:
                self.tangents[s] = posed.rotate_direction(mesh.tangent, mesh.neck)

    def light_matrix(self, towards: np.ndarray, size: int, span: float) -> np.ndarray:
        """World to depth map (3, 4) float32: x and y in texels, and the distance, seen from the direction `towards`."""
        middle = np.array([0, self.head.middle - 0.35, 0.4])
        rows = Camera(triple(middle + 9 * towards), triple(middle), 1.0).view()
        matrix = np.stack([rows[0] * (size / span), rows[1] * (size / span), -rows[2]])
        matrix[:2, 3] += size / 2
        return np.ascontiguousarray(matrix, np.float32)

    def _occlusion(self) -> np.ndarray:
        """Ambient light (n,) 0..1 at each vertex at rest: cosine-weighted share of directions without occluders."""
        total, weight = np.full(len(self.points), 1e-3, np.float32), np.full(len(self.points), 1e-3, np.float32)
        golden = np.pi * (3 - np.sqrt(5))
        for i in range(OCCLUSION_DIRECTIONS):
            y = 1 - 2 * (i + 0.5) / OCCLUSION_DIRECTIONS
            towards = np.array(direction(np.degrees(i * golden), np.degrees(np.arcsin(y))))
            matrix = self.light_matrix(towards, OCCLUSION_SIZE, OCCLUSION_SPAN)
            depth = np.full((OCCLUSION_SIZE, OCCLUSION_SIZE), 1e9, np.float32)
            raster.depth_map(self.points, self.faces, self.mesh_of, self.no_shadow, matrix, depth)
            args = (self.points, self.normals, matrix, towards.astype(np.float32), depth, np.float32(0.05))
            raster.gather_light(*args, total, weight)
        return total / weight

    def crease_weights(self, posed: Posed) -> np.ndarray:
        """Weights (3,) 0..1 of the creases of smile, raised brows and frown."""
        u = posed.units
        smile = u[unit_index("mouthSmileLeft")] + u[unit_index("mouthSmileRight")]
        squint = u[unit_index("cheekSquintLeft")] + u[unit_index("cheekSquintRight")]
        raised = u[unit_index("browInnerUp")] + u[unit_index("browOuterUpLeft")] + u[unit_index("browOuterUpRight")]
        frown = u[unit_index("browDownLeft")] + u[unit_index("browDownRight")]
        return np.array([0.4 * smile + 0.3 * squint, 0.5 * raised, 0.5 * frown], np.float32).clip(0, 1)
