"""A sentence that describes everyone in the target, written with sight of the references."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from mcpipe.core.params import RecordsPerShard
from mcpipe.core.records import RejectionError
from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import ClipCaption, ClipPeople, FramePair, VerifiedIdentity
from mcpipe.core.shards import StoredItems
from mcpipe.curate.buckets import AspectMode, Buckets, shapes_of, target_frame
from mcpipe.curate.captions import CAPTION_INSTRUCTIONS, Describe, SentenceParams, fault_detail, sentence_fault
from mcpipe.curate.samples import closeup, cut_window, face_crop
from mcpipe.curate.windows import CropMode, MinBody
from mcpipe.execution.engine import write_decided
from mcpipe.execution.workers import Decide
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.protocols import Captioner, TextLimit
from mcpipe.models.text_limit import T5Limit


class CaptionsParams(SentenceParams):
    """Captions of the samples."""

    describe: Describe
    """Whether captions describe clothes and actions only, or people's faces and hair as well."""
    reference_size: int = Field(ge=28)
    """Side in pixels at which the captioner sees a face reference."""
    crop: CropMode
    """What the target square has to hold."""
    min_body: MinBody
    """Minimum share of every person's mask in a square that does not hold everyone."""
    aspect: AspectMode
    """Whether targets are squares, or have one of several shapes."""
    buckets: Buckets
    """Those shapes."""
    records_per_shard: RecordsPerShard


@dataclass(frozen=True)
class CaptionsWork:
    """What this stage does to every clip."""

    captioner: Path
    tokenizer: Path
    """Folder of the tokeniser of the generator's T5, which has to read a caption whole."""
    params: CaptionsParams
    writer: Callable[[Path], Captioner] = Qwen2_5VL

    def load(self) -> Decide:
        """Load the captioner; the decision on one clip."""
        writer, limit = self.writer(self.captioner), T5Limit(self.tokenizer)
        return partial(captioned, writer=writer, limit=limit, params=self.params)


def write_captions(work: CaptionsWork, frames: Path, subjects: Path, identity: Path, captions: Path) -> None:
    """Write the captions of the clips in ``identity``."""
    report = Report("captions", ("transformers", "qwen-vl-utils"))
    sources = StoredItems((frames, FramePair), (subjects, ClipPeople), (identity, VerifiedIdentity))
    write_decided(sources, work, report, captions, work.params.records_per_shard)


def captioned(  # noqa: PLR0913  one argument per input and model
    frames: FramePair,
    subjects: ClipPeople,
    identity: VerifiedIdentity,
    writer: Captioner,
    limit: TextLimit,
    params: CaptionsParams,
) -> ClipCaption:
    """The caption of one clip, and those of its people's close-ups.

    Raises:
        RejectionError: no square holds everybody or their faces, or no answer is a usable caption.
    """
    bodies, boxes = subjects.masks[1][identity.order], identity.face_boxes[1]
    people, shapes = subjects.boxes[1][identity.order], shapes_of(params.aspect, params.buckets)
    window, _ = target_frame(bodies, people, boxes, params.crop, params.min_body, shapes)
    references = [face_crop(frames.initial, box, params.reference_size) for box in identity.face_boxes[0]]
    pictures = [*references, cut_window(frames.middle, window)]
    caption, fault, attempts = answered(pictures, writer, limit, params)
    if fault is not None:
        raise RejectionError(fault, fault_detail(caption, fault, limit.lost))
    closeups = [closeup(frames.middle, bodies, box, person) for person, box in enumerate(boxes)]
    alone = [answered(list(pair), writer, limit, params) for pair in zip(references, closeups, strict=True)]
    closeup_captions = tuple("" if unusable else sentence for sentence, unusable, _ in alone)
    return ClipCaption(key=frames.key, caption=caption, attempts=attempts, closeup_captions=closeup_captions)


def answered(
    pictures: list[np.ndarray], writer: Captioner, limit: TextLimit, params: CaptionsParams
) -> tuple[str, str | None, int]:
    """A sentence about the last of the ``pictures``, which shows the people of the others.

    Returns the last answer, the name of its fault or ``None`` if it is usable, and the number of answers.
    """
    num_people = len(pictures) - 1
    instruction = CAPTION_INSTRUCTIONS[params.describe].format(num_subjects=num_people)
    caption, fault = "", "caption_missing"
    for attempt in range(params.attempts):
        caption = writer.answer(
            pictures,
            instruction,
            temperature=params.temperature if attempt else 0.0,
            seed=params.seed + attempt,
            max_tokens=params.max_tokens,
        )
        fault = sentence_fault(caption, num_people, params, params.describe, limit.lost)
        if fault is None:
            return caption, None, attempt + 1
    return caption, fault, params.attempts
