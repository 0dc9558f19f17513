"""What a talking person does besides talking: blinks, glances, turns of the head and sway, all smooth."""

import torch
import torch.nn.functional as F


def _wander(n: int, fps: float, period_s: float, generator: torch.Generator, channels: int = 1) -> torch.Tensor:
    """(channels, n) smooth random curves of about unit deviation that change over `period_s` seconds."""
    knots = max(4, round(n / fps / period_s) + 4)
    values = torch.randn(channels, 1, knots, generator=generator)
    # Cubic interpolation between knots, cut so that the phase of the knots is not tied to the first frame.
    fine = F.interpolate(
        values[:, :, None], size=(1, round(knots * period_s * fps)), mode="bicubic", align_corners=True
    )
    start = int(torch.randint(max(1, fine.shape[-1] - n), (), generator=generator))
    return fine[:, 0, 0, start : start + n]


def _blinks(n: int, fps: float, generator: torch.Generator) -> torch.Tensor:
    """(n,) 1 = closed. A blink takes about 0.25 s and comes every 1.5 to 5 s."""
    times = torch.arange(n) / fps
    blink = torch.zeros(n)
    at = 0.5 + 2.5 * float(torch.rand((), generator=generator))
    while at < n / fps:
        phase = (times - at) / torch.where(times < at, 0.07, 0.11)  # lids close faster than they open
        blink = torch.maximum(blink, torch.exp(-(phase.abs() ** 2.5)))
        at += 1.5 + 3.5 * float(torch.rand((), generator=generator))
    return blink


def _gaze(n: int, fps: float, generator: torch.Generator) -> torch.Tensor:
    """(n, 2) in -1..1: mostly at the viewer, with quick glances away."""
    gaze = torch.zeros(n, 2)
    frame = 0
    while frame < n:
        away = float(torch.rand((), generator=generator)) < 0.35
        target = torch.randn(2, generator=generator) * (torch.tensor([0.55, 0.25]) if away else 0.08)
        end = frame + max(2, int(fps * (0.4 + (0.5 if away else 1.6) * float(torch.rand((), generator=generator)))))
        gaze[frame:end] = target.clamp(-1, 1)
        frame = end
    # A saccade takes some 60 ms.
    kernel = torch.tensor([0.25, 0.5, 0.25])[None, None]
    return F.conv1d(F.pad(gaze.T[:, None], (1, 1), mode="replicate"), kernel)[:, 0].T


def behave(
    n: int, fps: float, energy: torch.Tensor, generator: torch.Generator, *, turned: float = 0.0, amount: float = 1.0
) -> dict[str, torch.Tensor]:
    """Motion of `n` frames: `blink`, `brow` (n,), `gaze`, `shift` (n, 2), and `yaw`, `pitch`, `roll` (n,) in radians.

    `shift` is in half images (the picture spans -1..1). `energy` (n,) 0..1 is the loudness of the speech, which makes
    the head nod and the brows move; `turned` is a constant yaw in radians; `amount` scales every turn and sway.
    """
    slow = _wander(n, fps, 1.6, generator, 5) * amount
    quick = _wander(n, fps, 0.45, generator, 2) * amount
    width = max(3, int(0.28 * fps) | 1)
    calm = F.avg_pool1d(F.pad(energy[None, None], (width // 2, width // 2), mode="replicate"), width, 1)[0, 0]
    calm = F.avg_pool1d(F.pad(calm[None, None], (width // 2, width // 2), mode="replicate"), width, 1)[0, 0]
    return {
        "blink": _blinks(n, fps, generator),
        "gaze": _gaze(n, fps, generator),
        "brow": (calm * 0.8 - 0.25 + 0.25 * slow[4]).clamp(-0.5, 1),
        "yaw": turned + 0.11 * slow[0] + 0.012 * quick[0],
        "pitch": 0.045 * slow[1] + 0.07 * amount * calm + 0.012 * quick[1],
        "roll": 0.03 * slow[2],
        "shift": torch.stack([0.018 * slow[3], 0.008 * slow[4] + 0.012 * amount * calm], 1),
    }
