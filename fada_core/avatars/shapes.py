"""Simple surfaces for clothes and accessories: tubes, balls and sheets, and their union."""

from dataclasses import dataclass

import numpy as np

from .scalp import unit


@dataclass(frozen=True)
class Shape:
    """A surface: `points` (n, 3), `faces` (F, 3) and `uv` (n, 2)."""

    points: np.ndarray
    faces: np.ndarray
    uv: np.ndarray


def join(shapes: list[Shape]) -> Shape:
    """Combine shapes into one."""
    starts = np.cumsum([0, *(len(s.points) for s in shapes[:-1])])
    faces = np.concatenate([s.faces + start for s, start in zip(shapes, starts, strict=True)])
    points, uv = np.concatenate([s.points for s in shapes]), np.concatenate([s.uv for s in shapes])
    return Shape(points.astype(np.float32), faces.astype(np.int32), uv.astype(np.float32))


def sheet(points: np.ndarray, uv: np.ndarray | None = None, flip: bool = False) -> Shape:
    """A surface over a grid of points (rows, columns, 3).

    Its front is the side from which rows go down and columns to the right, or with `flip` the other one.
    """
    rows, columns = points.shape[:2]
    at = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()[:, None]
    faces = np.concatenate([at + [0, columns, 1], at + [1, columns, columns + 1]])
    if uv is None:
        v, u = np.meshgrid(np.linspace(1, 0, rows), np.linspace(0, 1, columns), indexing="ij")
        uv = np.stack([u, v], -1)
    faces = faces[:, ::-1] if flip else faces
    return Shape(points.reshape(-1, 3).astype(np.float32), faces.astype(np.int32), uv.reshape(-1, 2).astype(np.float32))


def tube(path: np.ndarray, radius: np.ndarray | float, sides: int = 6, closed: bool = False) -> Shape:
    """A tube around a path (m, 3); `radius`: (m,) or one number; `closed`: connect the end of the path to its start.

    A closed tube takes one number or a radius for each of m + 1 points.
    """
    if closed:
        path = np.concatenate([path, path[:1]])
    along = unit(np.gradient(path, axis=0))
    if closed:
        along[0] = along[-1] = unit(path[1] - path[-2])
    # A frame that rotates as little as possible along the path.
    first = np.array([0.31, 0.9, 0.17]) if abs(along[0, 1]) < 0.8 else np.array([0.9, 0.1, 0.3])
    across = np.empty_like(along)
    last = first
    for i, direction in enumerate(along):
        last = unit(last - direction * (last @ direction))
        across[i] = last
    up = np.cross(along, across)
    if closed:  # distribute the rotation between the frames at start and end over the path
        back = np.arctan2(across[-1] @ up[0], across[-1] @ across[0])
        turn = -back * np.linspace(0, 1, len(path))[:, None]
        across, up = across * np.cos(turn) + up * np.sin(turn), up * np.cos(turn) - across * np.sin(turn)
    angle = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    width = np.broadcast_to(np.asarray(radius, float), len(path))[:, None, None]
    ring = path[:, None] + width * (np.cos(angle) * across[:, None] + np.sin(angle) * up[:, None])
    return sheet(ring.swapaxes(0, 1))


def ball(centre: np.ndarray, radius: np.ndarray | float, rings: int = 8, sides: int = 10) -> Shape:
    """A ball around `centre` (3,), or with `radius` (3,) an ellipsoid along the axes."""
    theta = np.linspace(0, np.pi, rings + 1)[:, None]
    phi = np.linspace(0, 2 * np.pi, sides + 1)[None]
    points = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.cos(phi)], -1)
    return sheet(centre + points * radius)
