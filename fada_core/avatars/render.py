"""Frames of an avatar: static layers warped by the pose of the head, with eyes and mouth drawn on top."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .canvas import grid
from .features import draw_eye, draw_mouth
from .head import front, hair_behind, head
from .identity import Identity
from .scenery import background, body

# Layers reach a little beyond the picture, so that a moving head finds something there.
_EXTENT = 1.2
# Where the face's origin lies in the picture, in half images.
_FACE_Y = -0.03
_PIVOT_Y = 0.55  # the head rolls around its neck
_TURN = 0.42  # how far the nearest point moves in a turn, in half images per unit of sine
_CHUNK = 16  # frames at a time: what fits a CPU's cache


@dataclass
class _Layers:
    background: torch.Tensor
    behind: torch.Tensor | None
    body: torch.Tensor
    head: torch.Tensor
    front: torch.Tensor | None


def _paint(who: Identity, size: int, device: torch.device) -> _Layers:
    # Twice the picture's resolution, because a warped layer is read between its pixels.
    u, v = grid(math.ceil(2 * _EXTENT * size), _EXTENT, device)
    behind, cover = hair_behind(u, v, who), front(u, v, who)
    return _Layers(
        background(size, who, device),
        behind.rgba() if bool(behind.alpha.any()) else None,
        body(u, v, who).rgba(),
        head(u, v, who).rgba(),
        cover.rgba() if cover else None,
    )


def _sample(layer: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(4, t, t) layer read at `u`, `v` (n, h, w) -> (n, 4, h, w)."""
    where = torch.stack([u, v], -1) / _EXTENT
    return F.grid_sample(layer[None].expand(len(u), -1, -1, -1), where, align_corners=False, padding_mode="border")


def _over(image: torch.Tensor, layer: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(layer[:, :3], image, 1 - layer[:, 3:])


def _face_coordinates(
    x: torch.Tensor, y: torch.Tensor, who: Identity, motion: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Picture coordinates -> (u, v) on the face and (u, v) on the hair behind it, each (n, h, w)."""
    shift, roll = motion["shift"], motion["roll"][:, None, None]
    x = x - shift[:, 0, None, None]
    y = y - shift[:, 1, None, None] - _PIVOT_Y
    cos, sin = roll.cos() / who.scale, roll.sin() / who.scale
    u, v = cos * x + sin * y, cos * y - sin * x + (_PIVOT_Y - _FACE_Y)
    # The head bulges towards the viewer: what is near moves with a turn, its outline hardly.
    near = (1 - (u / 0.68).square() - (v / 0.8).square()).clamp(min=-0.3)
    yaw, pitch = motion["yaw"].sin()[:, None, None] * _TURN, motion["pitch"].sin()[:, None, None] * _TURN
    return u - yaw * near, v - pitch * near, u + 0.25 * yaw, v + 0.2 * pitch


def feature_boxes(who: Identity, motion: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """`mouth_box`, `eyes_box` and `face_box` (n, 4) in pixels x0, y0, x1, y1, within the picture, for every frame."""

    def place(u: float, v: float, half_u: float, up: float, down: float) -> torch.Tensor:
        near = 1 - (u / 0.68) ** 2 - (v / 0.8) ** 2
        fx = who.scale * (u + motion["yaw"].sin() * _TURN * near)
        fy = who.scale * (v + motion["pitch"].sin() * _TURN * near - (_PIVOT_Y - _FACE_Y))
        cos, sin = motion["roll"].cos(), motion["roll"].sin()
        px = cos * fx - sin * fy + motion["shift"][:, 0]
        py = sin * fx + cos * fy + _PIVOT_Y + motion["shift"][:, 1]
        box = torch.stack([px - half_u, py - up, px + half_u, py + down], 1)
        return ((box + 1) * (size / 2)).clamp(0, size)

    return {
        "mouth_box": place(0, who.mouth_y, who.mouth_width * 1.35, 0.17, 0.33),
        "eyes_box": place(0, who.eye_y, who.eye_gap + who.eye_width * 1.5, 0.3, 0.15),
        "face_box": place(0, 0, who.face_width * 1.15, who.face_top + 0.08, who.face_chin + 0.1),
    }


def _crop(boxes: torch.Tensor, size: int) -> tuple[slice, slice]:
    """Rows and columns that hold every box."""
    low, high = boxes[:, :2].min(0).values.floor().int(), boxes[:, 2:].max(0).values.ceil().int()
    return slice(max(0, int(low[1]) - 1), min(size, int(high[1]) + 1)), slice(
        max(0, int(low[0]) - 1), min(size, int(high[0]) + 1)
    )


@torch.no_grad()
def render(
    identity: Identity, motion: dict[str, torch.Tensor], size: int = 128, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Frames (n, 3, size, size) in -1..1.

    `motion` holds, per frame, `openness`, `width`, `rounding`, `blink` (n,) in 0..1, `brow` (n,) in -0.5..1, `gaze`
    (n, 2) in -1..1, `yaw`, `pitch`, `roll` (n,) in radians and `shift` (n, 2) in half images.
    """
    device = torch.device(device)
    layers = _paint(identity, size, device)
    motion = {name: value.to(device) for name, value in motion.items()}
    x, y = grid(size, 1.0, device)
    n = len(motion["yaw"])
    frames = torch.empty(n, 3, size, size, device=device)
    for start in range(0, n, _CHUNK):
        part = {name: value[start : start + _CHUNK] for name, value in motion.items()}
        frames[start : start + _CHUNK] = _render_chunk(identity, layers, part, x, y)
    return frames.mul_(2).sub_(1).clamp_(-1, 1)


def _render_chunk(
    who: Identity, layers: _Layers, motion: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    size, count = len(x), len(motion["yaw"])
    u, v, back_u, back_v = _face_coordinates(x, y, who, motion)
    image = layers.background[None].expand(count, -1, -1, -1)
    if layers.behind is not None:
        image = _over(image, _sample(layers.behind, back_u, back_v))
    image = image.clone()
    rows = slice(int(0.55 * size), size)  # neck and shoulders; the body follows the head a little
    bx = (x[rows] - 0.45 * motion["shift"][:, 0, None, None]).expand(count, -1, -1)
    by = (y[rows] - 0.3 * motion["shift"][:, 1, None, None]).expand(count, -1, -1)
    image[:, :, rows] = _over(image[:, :, rows], _sample(layers.body, bx, by))
    values = {name: motion[name][:, None, None] for name in ("openness", "width", "rounding", "blink", "brow")}
    # The jaw drops with the mouth: the lower face is stretched downwards.
    drop = ((v - who.mouth_y + 0.1) / (who.face_chin - who.mouth_y)).clamp(0, 1)
    jaw_v = v - 0.085 * values["openness"] * drop * drop * (3 - 2 * drop) * (u.abs() < 0.9)
    image = _over(image, _sample(layers.head, u, jaw_v))
    boxes = feature_boxes(who, motion, size)
    gaze = motion["gaze"][:, :, None, None]
    rows, columns = _crop(boxes["eyes_box"], size)
    middle = (columns.start + columns.stop) // 2
    margin = math.ceil(0.1 * size)
    for side, half in ((-1, slice(columns.start, middle + margin)), (1, slice(middle - margin, columns.stop))):
        where = (slice(None), slice(None), rows, half)
        image[where] = draw_eye(
            image[where],
            u[:, rows, half],
            v[:, rows, half],
            who,
            side,
            values["blink"],
            gaze,
            values["brow"],
            values["openness"],
        )
    rows, columns = _crop(boxes["mouth_box"], size)
    image[:, :, rows, columns] = draw_mouth(
        image[:, :, rows, columns],
        u[:, rows, columns],
        v[:, rows, columns],
        who,
        values["openness"],
        values["width"],
        values["rounding"],
    )
    if layers.front is not None:
        image = _over(image, _sample(layers.front, u, jaw_v))
    return image
