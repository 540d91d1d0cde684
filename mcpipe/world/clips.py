"""Clips of the world as real video files, most of them good, some made to be refused.

A clip's images, container and bytes depend on the seed, its kind and its number alone. Its truth is that of the
first frame and of the one in the middle.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from mcpipe.core.params import Params, PipelinePeople, people_numbers
from mcpipe.world.attributes.skin import skin_tone
from mcpipe.world.backgrounds import PLACES
from mcpipe.world.identities import Identity, sample_identity, world_rng
from mcpipe.world.lookalikes import look_alike
from mcpipe.world.scene import PersonTruth, RenderedFrame, Scene, Sway, render, render_rgb, sample_scene
from mcpipe.world.shots import FRAMINGS, LEAST_WIDE_ASPECT, ShotSize
from mcpipe.world.traits import SEEDS
from mcpipe.world.video import FORMATS, encode

NAMESPACE = "clips"
RECURRING_SHARE = 0.3
"""Share of people of good clips who appear in other clips, too, in other clothes."""

RECURRING_PEOPLE_PER_CLIP = 0.25
"""How many different ones there are, against the number of good clips."""

PAIR = 2
"""People of whom one may be the look-alike of the other."""
LEAST_TOO_MANY = 3
"""People of a clip that has too many, unless so many are allowed: then it has one more than that."""
ALONE = "one_person"
"""Kind of the clips with too few people, which there are not if one person is enough."""

CHANGE_SPAN = (0.2, 0.8)
"""When an identity changes, as parts of the time to the middle frame."""

CUT_SPAN = (0.3, 0.7)
"""When a cut comes, as parts of the time to the middle frame."""

AWAY_YAW_RANGE = (2.4, 3.9)
"""Turn in radians of a head that shows its back."""

TRUNCATED_RANGE = (0.30, 0.45)
"""Part of the bytes that a truncated file keeps."""

TRUNCATED_FORMATS = (0, 1)
"""Places in `FORMATS` whose files are cut: an mp4 loses its index, an mkv its second half."""


class WorldParams(Params):
    """Settings of the rendered clips and faces."""

    seed: int = Field(ge=0)
    """Seed of everything; another seed gives other people."""
    width: int = Field(ge=64, multiple_of=2)
    """Width of a clip, in pixels."""
    height: int = Field(ge=64, multiple_of=2)
    """Height of a clip, in pixels."""
    fps: int = Field(ge=4)
    """Frames per second."""
    seconds: float = Field(ge=0.5)
    """Length of a clip."""
    num_people: PipelinePeople
    """People of a good clip (paper: 2), or a range from which each clip draws its number; at most 4."""
    good_clips: int = Field(ge=0)
    """Clips of people who can be verified."""
    bad_clips_per_kind: int = Field(ge=0)
    """Number of clips of each kind that must be refused."""
    faces: int = Field(ge=0)
    """Portraits in the face pool."""
    portrait_size: int = Field(ge=64)
    """Side of a portrait in pixels."""
    shots: ShotSize
    """How near the camera is to the people of a clip; wide shots need a frame of 16:9 or wider."""
    alike: float = Field(ge=0, le=1)
    """Share of pairs who differ in one or two lasting traits alone: the people of good clips, and of the face pool
    the first and the second, the third and the fourth, and so on."""

    @model_validator(mode="after")
    def _fit_into_a_scene(self) -> "WorldParams":
        if people_numbers(self.num_people)[-1] not in (1, 2, 3, 4):
            raise ValueError(f"a clip of the world shows at most 4 people, subjects.num_people is {self.num_people}")
        return self

    @model_validator(mode="after")
    def _wide_enough(self) -> "WorldParams":
        if self.shots == "wide" and self.width < int(LEAST_WIDE_ASPECT * self.height):
            raise ValueError(f"wide shots need a frame of 16:9 or wider, not {self.width} x {self.height}")
        return self


@dataclass(frozen=True)
class ClipSpec:
    """One clip to be made."""

    name: str
    """File name without its ending; it does not depend on the kind."""
    kind: str
    """One of `KINDS`."""
    number: int
    """Among its kind."""


@dataclass(frozen=True)
class ClipTruth:
    """Ground truth of one clip."""

    spec: ClipSpec
    file: str
    initial: RenderedFrame
    middle: RenderedFrame


Script = Callable[[float], list[tuple[float, Scene]]]
"""Content at a time in seconds: a scene with the share 1, or two blended scenes with shares that sum to 1."""


def clip_specs(params: WorldParams) -> list[ClipSpec]:
    """All clips, good and bad mixed in an order drawn from the seed."""
    jobs = [("good", number) for number in range(params.good_clips)]
    bad = [kind for kind in KINDS if kind != "good" and (kind != ALONE or 1 not in people_numbers(params.num_people))]
    jobs += [(kind, number) for kind in bad for number in range(params.bad_clips_per_kind)]
    order = world_rng(NAMESPACE, params.seed, 0).permutation(len(jobs))
    return [ClipSpec(f"clip_{place:03d}", *jobs[index]) for place, index in enumerate(order)]


def write_clip(folder: Path, spec: ClipSpec, params: WorldParams) -> ClipTruth:
    """Render and encode one clip into ``folder``; returns its truth."""
    rng = world_rng(NAMESPACE, params.seed, 1, list(KINDS).index(spec.kind), spec.number)
    script = KINDS[spec.kind](rng, spec.number, params)
    total = round(params.seconds * params.fps)
    place = TRUNCATED_FORMATS[spec.number % 2] if spec.kind == "truncated" else spec.number % len(FORMATS)
    file = folder / f"{spec.name}.{FORMATS[place][0]}"
    truths = {index: film_with_truth(script, index / params.fps, params) for index in (0, total // 2)}
    pictures = (
        truths[index].rgb if index in truths else film(script, index / params.fps, params) for index in range(total)
    )
    encode(file, pictures, place, (params.width, params.height), params.fps)
    if spec.kind == "truncated":
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * rng.uniform(*TRUNCATED_RANGE))])
    return ClipTruth(spec, file.name, truths[0], truths[total // 2])


def film(script: Script, time_s: float, params: WorldParams) -> np.ndarray:
    """The image (H, W, 3) uint8 of a clip at a time."""
    shots = [(share, render_rgb(scene, time_s, params.width, params.height)) for share, scene in script(time_s)]
    if len(shots) == 1:
        return shots[0][1]
    return np.rint(sum(share * rgb for share, rgb in shots)).astype(np.uint8)


def film_with_truth(script: Script, time_s: float, params: WorldParams) -> RenderedFrame:
    """The same image with its truth; of two blended scenes the one with the larger share is true."""
    shots = script(time_s)
    _, scene = max(reversed(shots), key=lambda shot: shot[0])
    frame = render(scene, time_s, params.width, params.height)
    return frame if len(shots) == 1 else replace(frame, rgb=film(script, time_s, params))


def clip_identity(params: WorldParams, *numbers: int) -> Identity:
    """A person of the clips, from a stream of their own."""
    return sample_identity(world_rng(NAMESPACE, params.seed, 2, *numbers))


def _cast(rng: np.random.Generator, count: int, params: WorldParams) -> list[Identity]:
    """Different people of one scene, some of whom recur in other clips."""
    num_recurring = max(1, round(RECURRING_PEOPLE_PER_CLIP * params.good_clips))
    recurring = list(rng.permutation(num_recurring)[:count])
    return [
        clip_identity(params, 0, int(recurring.pop()))
        if recurring and rng.random() < RECURRING_SHARE
        else clip_identity(params, 1, int(rng.integers(SEEDS)))
        for _ in range(count)
    ]


def _filmed(scene: Scene) -> Script:
    return lambda _time_s: [(1.0, scene)]


def _alike(rng: np.random.Generator, cast: list[Identity], params: WorldParams) -> list[Identity]:
    """Two people; in a share `WorldParams.alike` of all cases, the second is a look-alike of the first."""
    if len(cast) != PAIR or not params.alike or rng.random() >= params.alike:
        return cast
    pair = [cast[0], look_alike(rng, cast[0])]
    return [pair[int(index)] for index in rng.permutation(PAIR)]


def _scene(rng: np.random.Generator, cast: list[Identity], params: WorldParams) -> Scene:
    return sample_scene(rng, cast, framing=FRAMINGS[params.shots])


def _people(count: int) -> Callable[[np.random.Generator, int, WorldParams], Script]:
    def kind(rng: np.random.Generator, _number: int, params: WorldParams) -> Script:
        return _filmed(_scene(rng, _alike(rng, _cast(rng, count, params), params), params))

    return kind


def _good(rng: np.random.Generator, number: int, params: WorldParams) -> Script:
    """As many people as are allowed; of several numbers each is as likely as any other."""
    numbers = people_numbers(params.num_people)
    place = int(world_rng(NAMESPACE, params.seed, 4, number).integers(len(numbers))) if len(numbers) > 1 else 0
    return _people(numbers[place])(rng, number, params)


def _too_many(rng: np.random.Generator, number: int, params: WorldParams) -> Script:
    """More people than are allowed."""
    return _people(max(LEAST_TOO_MANY, people_numbers(params.num_people)[-1] + 1))(rng, number, params)


def _cut(rng: np.random.Generator, _number: int, params: WorldParams) -> Script:
    """Another scene with other people from some time before the middle."""
    cast = _cast(rng, 4, params)
    before, after = _scene(rng, cast[:2], params), _scene(rng, cast[2:], params)
    place = next(place for place in PLACES if place not in (before.background.place, "studio"))
    after = replace(after, background=replace(after.background, place=place))
    cut_s = 0.5 * params.seconds * float(rng.uniform(*CUT_SPAN))
    return lambda time_s: [(1.0, after if time_s >= cut_s else before)]


def _identity_change(rng: np.random.Generator, number: int, params: WorldParams) -> Script:
    """One of two people turns into another person, too slowly for a cut."""
    before = _scene(rng, _cast(rng, 2, params), params)
    changed = number % 2
    old = before.people[changed].identity
    new = next(
        person
        for attempt in range(1000)
        if (person := clip_identity(params, 3, number, attempt)).hair_colour != old.hair_colour
        and person.hair_cut != old.hair_cut
        and skin_tone(person.skin) != skin_tone(old.skin)
    )
    people = list(before.people)
    people[changed] = replace(people[changed], identity=new)
    after = replace(before, people=tuple(people))
    start, end = (0.5 * params.seconds * part for part in CHANGE_SPAN)

    def blended(time_s: float) -> list[tuple[float, Scene]]:
        share = float(np.clip((time_s - start) / (end - start), 0.0, 1.0))
        return [shot for shot in ((1.0 - share, before), (share, after)) if shot[0] > 0.0]

    return blended


def _face_away(rng: np.random.Generator, number: int, params: WorldParams) -> Script:
    """One of two people shows the back of the head."""
    scene = _scene(rng, _cast(rng, 2, params), params)
    people = list(scene.people)
    turned = people[number % 2]
    yaw = Sway(float(rng.uniform(*AWAY_YAW_RANGE)), 0.1, 0.3, 0.0)
    people[number % 2] = replace(turned, sways=turned.sways | {"yaw": yaw})
    return _filmed(replace(scene, people=tuple(people)))


KINDS: dict[str, Callable[[np.random.Generator, int, WorldParams], Script]] = {
    "good": _good,
    ALONE: _people(1),
    "three_people": _too_many,
    "cut": _cut,
    "identity_change": _identity_change,
    "face_away": _face_away,
    "truncated": _good,
}
"""Every kind of clip; all but the first must be refused by curation."""


def people_as_json(people: tuple[PersonTruth, ...]) -> list[dict[str, object]]:
    """Ground truth of everybody in one frame as JSON, in pixels."""
    return [
        {
            "identity": person.identity.key,
            "box": None if person.box is None else person.box.tolist(),
            "keypoints": person.keypoints.round(3).tolist(),
            "face_box": person.face_box.round(3).tolist(),
            "landmarks": person.landmarks.round(3).tolist(),
            "face_visible": round(person.face_visible, 4),
            "head_height_px": round(person.head_height_px, 3),
        }
        for person in people
    ]
