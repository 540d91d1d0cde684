"""The world on one sheet: scenes with what captions say of them, portraits, and one person in many clothes."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mcpipe.world.captions import describe_face, describe_person, describe_scene
from mcpipe.world.identities import sample_identity, world_rng
from mcpipe.world.scene import Scene, render, render_portrait, sample_scene

NAMESPACE = "preview"
COUNTS = (1, 2, 3)
SCENE_PX = (312, 234)
NUM_PORTRAITS, PORTRAIT_PX = 8, 114
NUM_MOMENTS, MOMENT_PX = 6, 154
MOMENT_S = 0.7
"""Time into a scene at which it is rendered, and the time between two images of one person."""

COLOUR_STEP = 3
"""Step to whose multiples colours are rounded, which is invisible and makes the file a quarter smaller."""

GAP_PX = 8
FONT_PX = 11
LETTER_PX = 5.6
"""Mean width of a letter, for breaking lines."""

INK, QUIET = (24, 24, 28), (96, 98, 106)

Tile = tuple[np.ndarray, str]
"""An image (H, W, 3) and what to write below it."""


def preview_sheet(seed: int) -> Image.Image:
    """A contact sheet of the part of the world that belongs to a seed, without the camera's noise."""
    rows = {
        f"Scenes of seed {seed} with their true captions": _scenes(seed),
        "Portraits": _portraits(seed),
        "One person at several moments, in other clothes and places": _moments(seed),
    }
    parts = [_strip(title, tiles) for title, tiles in rows.items()]
    size = max(part.width for part in parts), sum(part.height for part in parts) + GAP_PX
    sheet = Image.new("RGB", size, "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return Image.fromarray((np.rint(np.asarray(sheet) / COLOUR_STEP) * COLOUR_STEP).astype(np.uint8))


def _scenes(seed: int) -> list[Tile]:
    tiles = []
    for count in COUNTS:
        rng = world_rng(NAMESPACE, seed, 0, count)
        scene = sample_scene(rng, [sample_identity(rng) for _ in range(count)])
        tiles.append((_seen(scene, MOMENT_S, *SCENE_PX), describe_scene(scene)))
    return tiles


def _portraits(seed: int) -> list[Tile]:
    tiles = []
    for number in range(NUM_PORTRAITS):
        rng = world_rng(NAMESPACE, seed, 1, number)
        identity = sample_identity(rng)
        portrait = render_portrait(identity, rng, PORTRAIT_PX).rgb
        tiles.append((portrait, describe_face(identity).removeprefix("a person with ")))
    return tiles


def _moments(seed: int) -> list[Tile]:
    identity = sample_identity(world_rng(NAMESPACE, seed, 2))
    tiles = []
    for number in range(NUM_MOMENTS):
        scene = sample_scene(world_rng(NAMESPACE, seed, 3, number), [identity])
        clothes = describe_person(identity, scene.people[0].outfit).removeprefix(f"{describe_face(identity)}, ")
        tiles.append((_seen(scene, number * MOMENT_S, MOMENT_PX, MOMENT_PX), clothes))
    return tiles


def _seen(scene: Scene, time_s: float, width: int, height: int) -> np.ndarray:
    quiet = replace(scene, light=replace(scene.light, noise=0.0))
    return render(quiet, time_s, width, height).rgb


def _strip(title: str, tiles: Sequence[Tile]) -> Image.Image:
    """Tiles side by side under a title, each with its text below."""
    font, line = ImageFont.load_default(FONT_PX), FONT_PX + 3
    texts = [wrap(text, int(picture.shape[1] / LETTER_PX)) for picture, text in tiles]
    top = 2 * GAP_PX + FONT_PX + 2
    height = top + tiles[0][0].shape[0] + line * max(map(len, texts)) + GAP_PX
    strip = Image.new("RGB", (sum(picture.shape[1] + GAP_PX for picture, _ in tiles) + GAP_PX, height), "white")
    pen = ImageDraw.Draw(strip)
    pen.text((GAP_PX, GAP_PX), title, INK, ImageFont.load_default(FONT_PX + 2))
    left = GAP_PX
    for (picture, _), lines in zip(tiles, texts, strict=True):
        strip.paste(Image.fromarray(picture), (left, top))
        for number, text in enumerate(lines):
            pen.text((left, top + picture.shape[0] + 3 + line * number), text, QUIET, font)
        left += picture.shape[1] + GAP_PX
    return strip
