"""Who a person of the puppet world is: the lasting traits of a face, drawn from documented ranges.

Clothes, held objects, poses and light belong to a scene, never to an identity. Identities are drawn from named
streams of random numbers (`world_rng`), so that those of the zoo, of the clips and of the face pool never meet.
"""

import hashlib
from dataclasses import astuple, dataclass

import numpy as np

Colour = tuple[float, float, float]
"""Red, green and blue in [0, 255]."""

SKIN_TONES: dict[str, Colour] = {
    "pale": (255, 226, 206),
    "light": (240, 196, 160),
    "tan": (205, 150, 106),
    "brown": (146, 95, 62),
    "dark": (88, 55, 38),
}
"""Named stops of the skin scale, evenly spaced on [0, 1]."""

HAIR_COLOURS: dict[str, Colour] = {
    "black": (34, 30, 34),
    "brown": (104, 64, 34),
    "blond": (232, 196, 106),
    "red": (196, 74, 26),
    "gray": (172, 174, 180),
    "blue": (58, 96, 204),
    "pink": (236, 110, 170),
    "green": (62, 150, 90),
}
HAIR_CUTS = ("bald", "short", "spiky", "curly", "bobbed", "long", "tied")
EYE_COLOURS: dict[str, Colour] = {
    "brown": (96, 58, 26),
    "blue": (56, 122, 214),
    "green": (56, 152, 84),
    "gray": (124, 134, 146),
}
FACIAL_HAIR = {"none": 0.6, "beard": 0.28, "moustache": 0.12}
"""Kinds of facial hair with their shares."""

GLASSES_SHARE = 0.3
FRAME_COLOURS: tuple[Colour, ...] = ((28, 28, 34), (176, 40, 44), (44, 70, 160))
"""Colours of spectacle frames; a frame is drawn from one of them."""

SKIN_JITTER = 0.08
"""Half-width of a skin tone's band on the scale: tones keep a gap, so that their names stay true."""

HAIR_JITTER = 7.0
"""Standard deviation of a hair colour around its named one, in 8-bit steps."""

GEOMETRY_RANGES: dict[str, tuple[float, float]] = {
    "face_width": (0.74, 0.95),
    "jaw": (0.50, 1.00),
    "eye_gap": (0.30, 0.42),
    "eye_height": (-0.12, 0.08),
    "eye_size": (0.115, 0.175),
    "brow_thickness": (0.025, 0.075),
    "brow_tilt": (-0.30, 0.30),
    "nose_length": (0.18, 0.34),
    "nose_width": (0.07, 0.15),
    "mouth_width": (0.20, 0.40),
    "mouth_height": (0.48, 0.62),
    "lip_thickness": (0.028, 0.06),
    "ear_size": (0.13, 0.22),
    "fringe": (0.20, 0.80),
    "parting": (-1.00, 1.00),
    "freckles": (-1.50, 1.00),
    "build": (0.86, 1.08),
}
"""The range from which each field of `FaceGeometry` is drawn, uniformly."""


@dataclass(frozen=True)
class FaceGeometry:
    """Shape of a face; lengths in units of half the head height, measured from the centre of the head."""

    face_width: float
    """Half-width of the head."""

    jaw: float
    """Width of the jaw against a round one, in (0, 1]."""

    eye_gap: float
    """Distance of each eye from the middle line."""

    eye_height: float
    """Height of the eyes, positive below the centre."""

    eye_size: float
    brow_thickness: float
    brow_tilt: float
    """Positive where the outer ends droop."""

    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    """Depth of the mouth below the centre."""

    lip_thickness: float
    ear_size: float
    fringe: float
    """How high the hairline begins, in [0, 1]."""

    parting: float
    """Side on which the hair is parted, in [-1, 1]."""

    freckles: float
    """Strength of the freckles; none at or below 0."""

    build: float
    """Breadth of the shoulders against the average."""


@dataclass(frozen=True)
class Identity:
    """The lasting traits of one person."""

    skin: float
    """Place on the scale of skin tones, 0 pale to 1 dark."""

    hair_cut: str
    hair_colour: str
    hair_rgb: Colour
    eye_colour: str
    eye_rgb: Colour
    facial_hair: str
    glasses: Colour | None
    """Colour of the frame, or None without glasses."""

    round_glasses: bool
    geometry: FaceGeometry

    @property
    def key(self) -> str:
        """A short name that two identities share only if they are equal."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()[:10]

    @property
    def skin_tone(self) -> str:
        """The named tone next to the skin's place on the scale."""
        names = list(SKIN_TONES)
        return names[min(round(self.skin * (len(names) - 1)), len(names) - 1)]

    @property
    def skin_rgb(self) -> Colour:
        """The skin's colour, between the two named tones around it."""
        stops = np.array(list(SKIN_TONES.values()), dtype=float)
        place = np.clip(self.skin, 0.0, 1.0) * (len(stops) - 1)
        low = int(min(place, len(stops) - 2))
        return _colour(stops[low] + (place - low) * (stops[low + 1] - stops[low]))


def world_rng(namespace: str, *numbers: int) -> np.random.Generator:
    """The stream of random numbers of one named part of the world; other names or numbers give other streams."""
    digest = hashlib.sha256(namespace.encode()).digest()
    return np.random.default_rng([int.from_bytes(digest[:8], "little"), *numbers])


def sample_identity(rng: np.random.Generator) -> Identity:
    """A new person, every trait drawn independently from its documented range."""
    tones = len(SKIN_TONES)
    hair_colour = str(rng.choice(list(HAIR_COLOURS)))
    eye_colour = str(rng.choice(list(EYE_COLOURS)))
    glasses = FRAME_COLOURS[int(rng.integers(len(FRAME_COLOURS)))] if rng.random() < GLASSES_SHARE else None
    skin = int(rng.integers(tones)) / (tones - 1) + rng.uniform(-SKIN_JITTER, SKIN_JITTER)
    return Identity(
        skin=float(np.clip(skin, 0.0, 1.0)),
        hair_cut=str(rng.choice(HAIR_CUTS)),
        hair_colour=hair_colour,
        hair_rgb=jittered(HAIR_COLOURS[hair_colour], HAIR_JITTER, rng),
        eye_colour=eye_colour,
        eye_rgb=jittered(EYE_COLOURS[eye_colour], HAIR_JITTER, rng),
        facial_hair=str(rng.choice(list(FACIAL_HAIR), p=list(FACIAL_HAIR.values()))),
        glasses=glasses,
        round_glasses=bool(rng.random() < 0.5),
        geometry=FaceGeometry(**{name: float(rng.uniform(*span)) for name, span in GEOMETRY_RANGES.items()}),
    )


def jittered(colour: Colour, deviation: float, rng: np.random.Generator) -> Colour:
    """A colour near the given one; ``deviation`` in 8-bit steps per channel."""
    return _colour(np.clip(np.array(colour) + rng.normal(0.0, deviation, 3), 0.0, 255.0))


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
