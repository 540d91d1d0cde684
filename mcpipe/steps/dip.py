"""Disrupted-instance pairs: an image with its subjects, and the same image with its subjects repainted (FocusDPO).

The winner is the target of a sample, real or drawn with references. M_prior is each subject's face, grown so that hair
belongs to it, from the masks of curation or, in a drawn target, from the project's own segmenter. The loser is the
winner with M_prior repainted by an inpainter after the target's caption, which the captioner wrote.

Departures from the paper: subjects are faces, as the references are; the recogniser curates instead of people; the
caption of the repainted region is that of the close-up (single) or of the image (multi).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from pydantic import Field

from mcpipe.core.params import Params, RecordsPerShard, TakenFrom
from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import Sample
from mcpipe.core.shards import StoredItem, StoredItems
from mcpipe.curate.recognisers import PerRecogniser, threshold_for
from mcpipe.curate.samples import face_masks
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.flux.adapters import load_adapter
from mcpipe.flux.backbone import FluxPipeline, load_generator
from mcpipe.flux.inpainting import FluxFill, Inpainter, InpaintParams
from mcpipe.flux.sampler import Requests, SampleParams, generate
from mcpipe.models.faces import InsightFaces
from mcpipe.models.pose import UltralyticsPose
from mcpipe.models.protocols import FaceAnalyser, PoseDetector, Segmenter
from mcpipe.models.segmenter import Sam2
from mcpipe.objectives.reward import match
from mcpipe.train.preference.records import DisruptedPair, Kind

Winner = Literal["real", "drawn"]
PACKAGES = ("torch", "diffusers", "transformers", "peft", "insightface", "onnxruntime")
Image = UInt8[np.ndarray, "H W 3"]
Masks = Bool[np.ndarray, "S H W"]
References = UInt8[np.ndarray, "S R R 3"]
ALL = "all"
"""End of the key of a pair of all people; that of a single one is its number."""


class DipParams(Params):
    """How pairs are made and curated."""

    winner: Winner
    """Real targets, or targets drawn with references by the start adapter."""
    kinds: list[Kind]
    """Close-ups of one person, images of all, or both."""
    split: Literal["train", "val"]
    """The samples that pairs are made of."""
    max_pairs: Annotated[int, Field(ge=1)] | None
    """The largest number of images to be made into pairs, the first by key; ``None`` for all."""
    seed: int = Field(ge=0)
    """Seed of drawing and repainting, together with a pair's key."""
    growth: float = Field(ge=0)
    """Growth of a face's mask on every side, in the square root of its area."""
    min_winner_similarity: PerRecogniser
    """Least cosine of a reference and its face in the winner, by the name of the recogniser's pack."""
    min_disruption: float = Field(ge=0)
    """Least difference between the Face-Sim of winner and loser."""
    inpaint: InpaintParams
    sample: Annotated[SampleParams, TakenFrom("generate.sample")]
    """How targets are drawn."""
    min_face_score: Annotated[float, Field(ge=0, le=1), TakenFrom("evaluate.min_face_score")]
    """Certainty of a face detection."""
    detection_size: Annotated[int, Field(ge=32), TakenFrom("evaluate.detection_size")]
    """Side in pixels at which the detector sees an image."""
    min_person_score: Annotated[float, Field(ge=0, le=1), TakenFrom("subjects.min_score")]
    """Certainty of a detected person, in drawn targets."""
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class Target:
    """An image that can win, its prompt and references, and the masks of its subjects if they are known."""

    key: str
    kind: Kind
    image: Image
    caption: str
    references: References
    masks: Masks | None


@dataclass(frozen=True)
class TargetItem:
    """One pair to be made of a stored sample; small, as work on it may be done elsewhere."""

    key: str
    sample: StoredItem
    person: int | None
    """The person of a close-up; ``None`` for the image of all."""

    def digest(self) -> str:
        """Digest of the sample's content."""
        return self.sample.digest()

    def inputs(self) -> list[object]:
        """The sample, and the part of it that is meant."""
        return [self.sample.read(Sample), self.key, self.person]


class TargetItems:
    """Every image of the samples of a split that can become a winner, sorted by key."""

    def __init__(self, samples: Path, params: DipParams) -> None:
        self._samples, self._params = samples, params

    def __iter__(self) -> Iterator[TargetItem]:
        """Images of all people and close-ups, as ``kinds`` says."""
        items = []
        for stored in StoredItems((self._samples, Sample)):
            sample = stored.read(Sample)
            if sample.split != self._params.split:
                continue
            if "multi" in self._params.kinds:
                items.append(TargetItem(f"{stored.key}-{ALL}", stored, None))
            if "single" in self._params.kinds:
                items += [TargetItem(f"{stored.key}-{i}", stored, i) for i in range(len(sample.references))]
        yield from sorted(items, key=lambda item: item.key)[: self._params.max_pairs]


@dataclass(frozen=True)
class DipWork:
    """What this stage does to every sample."""

    start: Path
    generator: Path
    inpainter: Path
    faces: Path
    pose: Path
    segmenter: Path
    params: DipParams

    def load(self) -> Decide:
        """Load the models; the decision on one image."""
        params = self.params
        recogniser = InsightFaces(self.faces, params.min_face_score, params.detection_size)
        fill = FluxFill(self.inpainter, self.generator, params.inpaint)
        draw = Drawer(self) if params.winner == "drawn" else None
        return partial(decided_pair, inpainter=fill, recogniser=recogniser, draw=draw, params=params)


class Drawer:
    """Draws targets with the start adapter and finds their subjects."""

    def __init__(self, work: DipWork) -> None:
        self._pipeline: FluxPipeline = load_generator(work.generator)
        self._spec = load_adapter(self._pipeline, work.start)
        self._pose: PoseDetector = UltralyticsPose(work.pose, work.params.min_person_score)
        self._segmenter: Segmenter = Sam2(work.segmenter)
        self._params = work.params

    def __call__(self, target: Target) -> Image:
        """The image of the target's caption and references, from the noise of its key."""
        seeds = [seed_of(target.key, self._params.seed)]
        (image,) = generate(
            self._pipeline,
            Requests([target.caption], [target.references], seeds, self._params.sample, self._spec.image_size, 1),
        )
        return image

    def masks(self, image: Image, boxes: Float[np.ndarray, "S 4"]) -> Masks:
        """Masks of the people to whom faces belong.

        Raises:
            RejectionError: a face belongs to nobody whom the detector sees.
        """
        people = self._pose.people(image).boxes
        owners = [_owner(people, box) for box in boxes]
        return self._segmenter.masks(image, people[owners])


def write_dip(work: DipWork, samples: Path, dip: Path) -> None:
    """Write the pairs of all samples of a split; what an interrupted run decided is not decided again."""
    items = TargetItems(samples, work.params)
    write_decided(items, work, Report("dip", PACKAGES), dip, work.params.records_per_shard)


def decided_pair(  # noqa: PLR0913  one argument per input and model
    sample: Sample,
    key: str,
    person: int | None,
    inpainter: Inpainter,
    recogniser: FaceAnalyser,
    draw: Drawer | None,
    params: DipParams,
) -> DisruptedPair:
    """The pair of a sample's image of all people, or of one person's close-up.

    Raises:
        RejectionError: `no_caption`, `sizes_differ`, `reference_without_face`, `winner_unlike_reference`, `no_person`,
            `empty_mask` or `loser_alike`.
    """
    target = target_of(sample, key, person)
    if not target.caption:
        raise RejectionError("no_caption", "the captioner gave no usable sentence about the close-up")
    identities = identities_of(target.references, recogniser)
    winner = target.image if draw is None else draw(target)
    scores, boxes = likeness(winner, identities, recogniser)
    if min(scores) < threshold_for(recogniser.name, params.min_winner_similarity, "dip.min_winner_similarity"):
        raise RejectionError("winner_unlike_reference", f"cosines {scores}")
    masks = target.masks if draw is None else face_masks(draw.masks(winner, boxes), boxes)
    if masks is None or not masks.any((1, 2)).all():
        raise RejectionError("empty_mask", "a subject has no pixel")
    grown = np.stack([grow(mask, params.growth) for mask in masks])
    loser = inpainter.repainted(winner, np.logical_or.reduce(grown), target.caption, seed=seed_of(key, params.seed))
    if loser.shape != winner.shape:
        raise RejectionError("sizes_differ", f"a winner of {winner.shape}, a loser of {loser.shape}")
    after, _ = likeness(loser, identities, recogniser)
    before_mean, after_mean = float(np.mean(scores)), float(np.mean(after))
    if before_mean - after_mean < params.min_disruption:
        raise RejectionError("loser_alike", f"Face-Sim {before_mean:.3f} before, {after_mean:.3f} after repainting")
    return DisruptedPair(
        key=key, kind=target.kind, caption=target.caption, winner_similarity=before_mean,
        loser_similarity=after_mean, winner=winner, loser=loser, references=target.references, masks=grown,
    )  # fmt: skip


def target_of(sample: Sample, key: str, person: int | None) -> Target:
    """The image of a sample that is meant, with what belongs to it."""
    if person is None:
        return Target(key, "multi", sample.target, sample.caption, sample.references, sample.masks)
    alone = slice(person, person + 1)
    caption = sample.closeup_captions[person]
    return Target(
        key, "single", sample.closeups[person], caption, sample.references[alone], sample.closeup_masks[alone]
    )


def identities_of(references: References, recogniser: FaceAnalyser) -> Float[np.ndarray, "S D"]:
    """Embeddings of references.

    Raises:
        RejectionError: the recogniser sees no face in one of them.
    """
    identities = np.stack([recogniser.faces(reference).identity for reference in references])
    if not identities.any(1).all():
        raise RejectionError("reference_without_face", "the recogniser sees no face in a reference")
    return identities


def likeness(
    image: Image, identities: Float[np.ndarray, "S D"], recogniser: FaceAnalyser
) -> tuple[list[float], Float[np.ndarray, "S 4"]]:
    """Cosine of every reference and the face it is matched with, 0 without one, and the boxes of these faces."""
    faces = recogniser.faces(image)
    similarity = identities @ faces.embeddings.T
    scores, boxes = [0.0] * len(identities), np.zeros((len(identities), 4), np.float32)
    for reference, face in match(similarity):
        scores[reference], boxes[reference] = round(float(similarity[reference, face]), 6), faces.boxes[face]
    return scores, boxes


def grow(mask: Bool[np.ndarray, "H W"], growth: float) -> Bool[np.ndarray, "H W"]:
    """A mask with an ellipse's growth on every side, in the square root of its area."""
    radius = round(growth * float(mask.sum()) ** 0.5)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def seed_of(key: str, seed: int) -> int:
    """A seed that belongs to a pair alone."""
    return int.from_bytes(sha256(f"{seed}\n{key}".encode()).digest()[:4])


def _owner(people: Float[np.ndarray, "P 4"], face: Float[np.ndarray, " 4"]) -> int:
    """The first person whose box holds the middle of a face."""
    x, y = (face[:2] + face[2:]) / 2
    holding = (people[:, 0] <= x) & (x <= people[:, 2]) & (people[:, 1] <= y) & (y <= people[:, 3])
    if not holding.any():
        raise RejectionError("no_person", "a face belongs to nobody whom the pose detector sees")
    return int(holding.argmax())
