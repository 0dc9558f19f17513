"""Random hair by age, sex and ancestry. The frequencies are our choice, and deliberately broad."""

import numpy as np

from .face_hair import FaceHairTraits
from .hair import HairTraits
from .mesh import Triple, triple
from .strands import natural_color

# Relative frequencies of the styles for women and for men.
SHARES = {
    "bald": (0.005, 0.06),
    "cropped": (0.03, 0.24),
    "short": (0.07, 0.22),
    "fringed": (0.05, 0.12),
    "swept": (0.05, 0.1),
    "quiff": (0.02, 0.1),
    "curly": (0.09, 0.08),
    "afro": (0.05, 0.03),
    "bob": (0.18, 0.01),
    "long": (0.24, 0.03),
    "ponytail": (0.1, 0.005),
    "bun": (0.08, 0.01),
    "braids": (0.04, 0.002),
}
FRINGED = ("fringed", "bob", "long")
BEARDS = {
    "": 0.52,
    "moustache": 0.06,
    "handlebar": 0.02,
    "goatee": 0.08,
    "chin": 0.03,
    "short": 0.14,
    "full": 0.11,
    "long": 0.04,
}


def sample_hair_traits(rng: np.random.Generator, age: float, sex: float, ancestry: Triple, pool: str) -> HairTraits:
    """Random hair. `age` 0 (5 years) .. 1 (85), `sex` 0 female .. 1 male, `ancestry`: African, Asian, European shares.

    Dyed hair has natural colours in the pool "high", and now and then others in "moderate".
    """
    african, asian, caucasian = ancestry
    man = rng.random() < sex
    shares = np.array([s[int(man)] for s in SHARES.values()])
    names = list(SHARES)
    shares[names.index("afro")] *= 0.1 + 3 * african
    shares[names.index("curly")] *= 0.6 + 1.2 * african
    shares[names.index("braids")] *= 0.5 + african + (age < 0.15)
    if age < 0.2:
        shares[names.index("bald")] = 0
    style = str(rng.choice(names, p=shares / shares.sum()))

    straight = 0.12 + 0.75 * african**0.7 + 0.15 * caucasian
    curl = float(np.clip(rng.normal(straight, 0.14), 0, 1))
    if style in ("afro", "curly"):
        curl = float(np.clip(rng.normal(0.72 if style == "curly" else 0.93, 0.08), 0.6, 1))
    fair = float(np.clip(rng.normal(0.12 + 0.5 * caucasian**1.5, 0.16 * (0.3 + caucasian)), 0, 1))
    red = float(rng.uniform(0.5, 1) if rng.random() < 0.08 * caucasian else 0.1 * rng.random())
    color = natural_color(fair, red)
    own = color
    grey = float(np.clip((age - 0.42) * 2.2 + rng.normal(0, 0.25), 0, 1) ** 1.3) if age > 0.35 else 0.0
    dyed = rng.random() < (0.25 if not man else 0.04) and age > 0.12
    roots = float(rng.uniform(0.25, 0.5))
    if dyed and grey > 0.2:
        grey *= 0.15  # grey covered by dye
    elif dyed and rng.random() < 0.4:
        color, roots = natural_color(min(1.0, fair + rng.uniform(0.2, 0.6)), red), 0.6
    if dyed and pool == "moderate" and rng.random() < 0.3:
        color = np.abs(np.array([0.15, 0.03, 0.05]) + rng.normal(0, 0.12, 3)).clip(0.01, 0.4)
    losing = man and age > 0.22
    recession = (
        float(np.clip(rng.normal(0.2 + 0.9 * (age - 0.2), 0.28), 0, 1)) if losing else float(0.12 * rng.random())
    )
    thinning = float(np.clip(rng.normal(1.5 * (age - 0.45), 0.35), 0, 1)) if losing and age > 0.3 else 0.0
    if thinning > 0.45:
        style = str(rng.choice(["cropped", "short", "bald"], p=[0.6, 0.25, 0.15]))

    beard = ""
    if man and age > 0.19:
        kinds = np.array(list(BEARDS.values()))
        beard = str(rng.choice(list(BEARDS), p=kinds / kinds.sum()))
    face = FaceHairTraits(
        color=triple(0.9 * own),
        grey=float(grey * 0.5),
        brow_height=float(rng.normal(0, 0.008)),
        brow_thick=float(np.clip(rng.normal(0.85 + 0.3 * sex, 0.15), 0.5, 1.6)),
        brow_arch=float(np.clip(rng.normal(0.35 - 0.5 * sex, 0.3), -1, 1)),
        brow_dense=float(np.clip(rng.normal(0.65, 0.2), 0.15, 1)),
        lash_length=float(np.clip(rng.normal(1.15 - 0.4 * sex, 0.2), 0.4, 1.8)),
        lash_dark=float(np.clip(rng.normal(0.75 - 0.3 * sex, 0.2), 0, 1)),
        beard=beard,
        beard_length=float(rng.random()),
        beard_grey=float(np.clip(grey * 1.3, 0, 1)),
    )
    return HairTraits(
        style,
        face,
        length=float(rng.random()),
        color=triple(color),
        grey=grey,
        roots=roots,
        curl=curl,
        volume=float(rng.random()),
        part=float(rng.choice([-1, 1]) * rng.uniform(0, 1)),
        fringe=float(rng.uniform(0.35, 1)) if style in FRINGED and rng.random() < 0.4 else 0.0,
        recession=recession,
        thinning=thinning,
    )
