"""Subjects of synthetic data in an image: located, segmented, cut as references and embedded, things as well as people.

A thing is located by its category with the grounder, cut whole and embedded by DINO. People are located by their faces,
from left to right; a reference is the face on white, embedded by the recogniser. Boxes and masks are those of whole
things and of faces, as in samples (`mcpipe.core.schemas.curation.CutSample`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from mcpipe.core.params import Params, TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.curate.objects import box_overlap
from mcpipe.curate.psr_settings import Kind
from mcpipe.curate.samples import face_crop, face_masks, on_white
from mcpipe.curate.subjects import clean_masks
from mcpipe.models.faces import InsightFaces
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.protocols import FaceAnalyser, ImageEncoder, Picture, PoseDetector, Segmenter
from mcpipe.models.scorers.dino import Dino
from mcpipe.steps.object_finder import MinScore, ObjectFinder, ObjectModels

NAMES: dict[str, Kind] = {"things": "things", "people": "people"}
FACE_JOINTS = slice(0, 3)
"""Nose and eyes among COCO's joints."""


class PeopleFinderParams(Params):
    """From which certainty people count as found, and the size of references."""

    min_person_score: Annotated[float, Field(ge=0, le=1), TakenFrom("subjects.min_score")]
    """Certainty of a person's box."""
    min_face_score: Annotated[float, Field(ge=0, le=1), TakenFrom("evaluate.min_face_score")]
    """Certainty of a face."""
    detection_size: Annotated[int, Field(ge=32), TakenFrom("evaluate.detection_size")]
    """Side in pixels at which the face detector sees an image."""
    reference_size: Annotated[int, Field(ge=16), TakenFrom("samples.reference_size")]
    """Side of a reference in pixels."""


class FinderParams(PeopleFinderParams):
    """From which certainty subjects of either kind count as found."""

    min_score: Annotated[MinScore, TakenFrom("grounding.min_score")]
    """Certainty of a thing's box."""
    max_same_box: Annotated[float, Field(ge=0, le=1), TakenFrom("objects.max_same_box")]
    """Largest intersection over union of the boxes of two things; beyond it they are one."""


@dataclass(frozen=True)
class LocatedSubjects:
    """The subjects of an image; index i is the same one in every array."""

    boxes: Float[np.ndarray, "N 4"]
    masks: Bool[np.ndarray, "N H W"]
    """Whole things, or the faces of people; disjoint."""
    wholes: Bool[np.ndarray, "N H W"]
    """Whole things, or whole people."""
    crops: UInt8[np.ndarray, "N S S 3"]
    """References on white."""
    features: Float[np.ndarray, "N D"]
    """Embeddings of unit length."""


class SubjectFinder(Protocol):
    """Finds the subjects that an image should show."""

    def locate(self, picture: Picture, categories: Sequence[str], which: str) -> LocatedSubjects:
        """The subject of every category; ``which`` is "target" or "reference".

        Raises:
            RejectionError: ``not_in_target`` or ``not_in_reference`` if one is absent, ``same_object``,
                ``too_many_people`` or ``empty_mask``.
        """
        ...


@dataclass(frozen=True)
class ThingFinder:
    """Finds things by their categories."""

    finder: ObjectFinder
    dino: ImageEncoder
    max_same_box: float

    def locate(self, picture: Picture, categories: Sequence[str], which: str) -> LocatedSubjects:
        """The most certain thing of every category, each another one."""
        each = [self.finder.box(picture, category) for category in categories]
        absent = [category for category, box in zip(categories, each, strict=True) if box is None]
        if absent:
            raise RejectionError(f"not_in_{which}", f"{absent[0]!r} is not found in the {which}")
        boxes = np.stack([box for box in each if box is not None]).astype(np.float32)
        for first in range(len(boxes)):
            for second in range(first):
                if box_overlap(boxes[first], boxes[second]) > self.max_same_box:
                    raise RejectionError("same_object", f"{categories[second]!r} and {categories[first]!r} are one box")
        crops = [self.finder.cut(picture, box) for box in boxes]
        whole = [crop for crop in crops if crop is not None]
        masks = clean_masks(self.finder.raw_masks(picture, boxes))
        if len(whole) < len(crops) or not masks.any(axis=(1, 2)).all():
            raise RejectionError("empty_mask", f"nothing is segmented in the box of one of {', '.join(categories)}")
        return LocatedSubjects(boxes, masks, masks, np.stack(whole), self.dino.pictures(whole).astype(np.float32))


@dataclass(frozen=True)
class PeopleFinder:
    """Finds people by their faces, each with the body whose nose and eyes are nearest."""

    pose: PoseDetector
    segmenter: Segmenter
    faces: FaceAnalyser
    size: int
    """Side of a reference in pixels."""

    def locate(self, picture: Picture, categories: Sequence[str], which: str) -> LocatedSubjects:
        """Everybody from left to right, if they are as many as the categories."""
        faces, bodies = self.faces.faces(picture), self.pose.people(picture)
        number = len(categories)
        if max(len(faces.boxes), len(bodies.boxes)) > number:
            detail = f"{len(faces.boxes)} faces and {len(bodies.boxes)} people for {number}"
            raise RejectionError("too_many_people", detail)
        if min(len(faces.boxes), len(bodies.boxes)) < number:
            detail = f"{len(faces.boxes)} faces and {len(bodies.boxes)} people are found in the {which}, not {number}"
            raise RejectionError(f"not_in_{which}", detail)
        left_to_right = np.argsort(faces.boxes[:, 0] + faces.boxes[:, 2], kind="stable")
        boxes = faces.boxes[left_to_right].astype(np.float32)
        wholes = clean_masks(self.segmenter.masks(picture, bodies.boxes[own_bodies(boxes, bodies.keypoints)]))
        masks = face_masks(wholes, boxes)
        if not masks.any(axis=(1, 2)).all():
            raise RejectionError("empty_mask", "nothing is segmented in somebody's face")
        crops = [face_crop(on_white(picture, mask), box, self.size) for mask, box in zip(wholes, boxes, strict=True)]
        return LocatedSubjects(
            boxes, masks, wholes, np.stack(crops), faces.embeddings[left_to_right].astype(np.float32)
        )


def check_same(cosines: Float[np.ndarray, " N"], place: int, category: str, least: float) -> float:
    """The cosine of a subject to its own crop, given those to all crops.

    Raises:
        RejectionError: ``other_subject`` if it is below ``least``, or below that to another crop.
    """
    own = float(cosines[place])
    if own < max(least, float(cosines.max())):
        detail = f"{category!r} has a cosine of {own:.3f} to its crop, at most {float(cosines.max()):.3f} to any"
        raise RejectionError("other_subject", detail, {"similarity": round(own, 4)})
    return own


def own_bodies(faces: Float[np.ndarray, "N 4"], keypoints: Float[np.ndarray, "N 17 3"]) -> Int[np.ndarray, " N"]:
    """The body of each face: one to one, with the least distances of their centres to nose and eyes together."""
    centres = (faces[:, :2] + faces[:, 2:]) / 2
    heads = keypoints[:, FACE_JOINTS, :2].mean(axis=1)
    distances = np.linalg.norm(centres[:, None] - heads[None], axis=2)
    return linear_sum_assignment(distances)[1]


@dataclass(frozen=True)
class SubjectModels:
    """Where the models lie that find subjects; `finder` can be given others of the same protocols."""

    objects: ObjectModels
    dino: Path
    pose: Path
    faces: Path
    load_dino: Callable[[Path], ImageEncoder] = Dino
    load_pose: Callable[[Path, float], PoseDetector] = UltralyticsPose
    load_faces: Callable[[Path, float, int], FaceAnalyser] = InsightFaces

    def finder(self, kind: Kind, params: FinderParams) -> SubjectFinder:
        """Load the models of a kind.

        Raises:
            FileNotFoundError: a checkpoint is missing.
            ValueError: a checkpoint is damaged.
        """
        if kind == "things":
            finder = self.objects.finder(params.min_score, params.reference_size)
            return ThingFinder(finder, self.load_dino(self.dino), params.max_same_box)
        return self.people(params)

    def people(self, params: PeopleFinderParams) -> "PeopleFinder":
        """Load the models that find people.

        Raises:
            FileNotFoundError: a checkpoint is missing.
            ValueError: a checkpoint is damaged.
        """
        return PeopleFinder(
            self.load_pose(self.pose, params.min_person_score),
            self.objects.load_segmenter(self.objects.segmenter),
            self.load_faces(self.faces, params.min_face_score, params.detection_size),
            params.reference_size,
        )


def kind_of(folder: Path) -> Kind:
    """The kind in the name of a folder: ``things`` or ``people``.

    Raises:
        ValueError: it is another name.
    """
    if folder.name not in NAMES:
        raise ValueError(f"{folder} should have the name of a kind: {' or '.join(NAMES)}")
    return NAMES[folder.name]
