"""Records of the stages of curation, from a clip's two frames to a training sample.

Frame 0 is the initial frame, which gives the references, frame 1 the middle one, which is the target. Boxes are
``x0, y0, x1, y1`` in pixels of the frames, masks are those of one person each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import JsonValue

from mcpipe.core.packing import Packed
from mcpipe.core.records import JSON
from mcpipe.core.schemas.typed import TypedRecord, rest

FRAMES = ("initial", "middle")
"""Names of the two frames, in the order of the first axis of arrays."""

SplitName = Literal["train", "val"]
"""Training data, or held out by identity."""
Measurement = float | int | list[float | int]
"""A number, or a list with one per frame, or per person of the initial and of the middle frame."""


@dataclass(frozen=True, kw_only=True)
class FramePair(TypedRecord):
    """The initial and the middle frame of a clip, without black bars."""

    KIND: ClassVar[str] = "frames of clip"
    STAGE: ClassVar[str] = "frames"

    clip: str
    """Path of the file below the folder of clips."""
    times_s: tuple[float, float]
    """Presentation times of the two frames."""
    num_frames: int
    """Length of the whole clip."""
    codec: str
    picture_px: tuple[int, int, int, int]
    """Window of the decoded frames without black bars: ``x0, y0, x1, y1``."""
    scores: dict[str, Measurement] = rest()
    """Measurements that accepted the clip."""
    initial: UInt8[np.ndarray, "height width 3"]
    middle: UInt8[np.ndarray, "height width 3"]

    @property
    def images(self) -> list[UInt8[np.ndarray, "height width 3"]]:
        """Both frames, in the order of `FRAMES`."""
        return [self.initial, self.middle]


@dataclass(frozen=True, kw_only=True)
class ClipPeople(TypedRecord):
    """The people of both frames, in each from left to right."""

    KIND: ClassVar[str] = "people of clip"
    STAGE: ClassVar[str] = "subjects"

    scores: dict[str, Measurement] = rest()
    """Measurements that accepted the clip."""
    boxes: Float[np.ndarray, "2 people 4"]
    keypoints: Float[np.ndarray, "2 people 17 3"]
    """COCO order; x, y in pixels and certainty in [0, 1]."""
    masks: Bool[np.ndarray, "2 people height width"]
    """Disjoint."""


@dataclass(frozen=True, kw_only=True)
class VerifiedIdentity(TypedRecord):
    """Faces of the same people in both frames; index i is the i-th person of the initial frame in all arrays."""

    KIND: ClassVar[str] = "identities of clip"
    STAGE: ClassVar[str] = "identity"

    recogniser: str
    """Name of the pack whose embeddings these are."""
    scores: dict[str, Measurement] = rest()
    """Measurements that accepted the clip."""
    order: Int[np.ndarray, " people"]
    """Index in `ClipPeople` of the middle frame, for each person of the initial one."""
    face_boxes: Float[np.ndarray, "2 people 4"]
    landmarks: Float[np.ndarray, "2 people 5 2"]
    """Left eye, right eye, nose, mouth corners; in pixels."""
    embeddings: Float[np.ndarray, "2 people width"]
    """Unit length."""


@dataclass(frozen=True, kw_only=True)
class ClipCaption(TypedRecord):
    """A sentence about the target."""

    KIND: ClassVar[str] = "caption of clip"
    STAGE: ClassVar[str] = "captions"

    caption: str
    attempts: int
    """Answers of the captioner up to this one."""
    closeup_captions: tuple[str, ...]
    """A sentence about the close-up of each person, in the order of the initial frame; empty without a usable one."""


@dataclass(frozen=True, kw_only=True)
class CutSample(TypedRecord):
    """A training sample before all clips together determine identities and split; index i is one subject everywhere."""

    KIND: ClassVar[str] = "sample"
    STAGE: ClassVar[str] = "samples"

    caption: str
    provenance: dict[str, JsonValue]
    """Descriptions of the source by all earlier stages, the target's window (x, y, side; or x, y, width, height of one
    that is to be no square) and the versions of packages."""
    target: UInt8[np.ndarray, "height width 3"]
    masks: Bool[np.ndarray, "subjects height width"]
    """Where each reference belongs in the target: the face of a person, the whole of an object."""
    references: UInt8[np.ndarray, "subjects reference reference 3"]
    """Faces of people, whole objects on white."""
    body_masks: Bool[np.ndarray, "subjects height width"] | None = None
    """Whole people; absent for objects, whose masks are whole."""
    portraits: UInt8[np.ndarray, "subjects portrait portrait 3"] | None = None
    """Whole people on white; absent for objects."""
    closeups: UInt8[np.ndarray, "subjects closeup_height closeup_width 3"]
    """The target around each subject, with all others painted white: targets of stage 1."""
    closeup_masks: Bool[np.ndarray, "subjects closeup_height closeup_width"]
    """Masks in the close-ups."""
    closeup_captions: tuple[str, ...]
    """A sentence about each close-up; empty where the captioner gave no usable one."""


@dataclass(frozen=True, kw_only=True)
class Sample(CutSample):
    """A training sample."""

    names: tuple[str, ...]
    """Identities of the subjects; a person or an object has the same name in all samples."""
    split: SplitName

    @property
    def clip(self) -> str:
        """Path of the clip's file below the folder of clips.

        Raises:
            RecordError: the provenance does not name it.

        """
        clip = self.provenance.get("clip")
        if not isinstance(clip, str):
            raise self.error(self.key, f"'provenance.clip' should be a string, found {clip!r}")
        return clip


def with_split(cut: Packed, names: Sequence[str], split: SplitName, versions: Mapping[str, JSON]) -> Packed:
    """The stored form of a `Sample`, given that of its `CutSample`, whose arrays stay encoded.

    Raises:
        RecordError: the provenance is absent.

    """
    provenance = cut.meta.get("provenance")
    if not isinstance(provenance, dict):
        raise CutSample.error(cut.key, f"'provenance' should be a mapping, found {provenance!r}")
    added: dict[str, JSON] = {
        "provenance": {**provenance, "versions": dict(versions)},
        "names": [*names],
        "split": split,
    }
    return cut.with_meta({**cut.meta, **added})
