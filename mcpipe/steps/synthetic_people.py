"""Training samples from synthetic rows of people: faces are references and masks, as curation has them."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from mcpipe.core.records import RejectionError
from mcpipe.core.schemas.curation import CutSample
from mcpipe.curate.object_rows import ObjectRow, with_article
from mcpipe.curate.objects import ObjectsParams, thing_name
from mcpipe.curate.samples import closeup, closeup_window, crop_masks, resize
from mcpipe.execution.workers import Decide
from mcpipe.steps.objects import ObjectsWork, picture_of
from mcpipe.steps.synthetic_subjects import PeopleFinder, PeopleFinderParams, SubjectModels


class SourceParams(ObjectsParams, PeopleFinderParams):
    """Which rows become samples, of things as well as of people."""


@dataclass(frozen=True, kw_only=True)
class PeopleRowsWork(ObjectsWork):
    """What is done to every row of people."""

    params: SourceParams
    people: SubjectModels

    def load(self) -> Decide:
        """Load the models; the decision on one row."""
        return partial(sample_of_people, finder=self.people.people(self.params))


def sample_of_people(row: ObjectRow, finder: PeopleFinder) -> CutSample:
    """One sample; index i is the same person in every array. The target stays as it is.

    Raises:
        RejectionError: ``unreadable_row``, or what the finder says of the target or of a reference.
    """
    if row.fault:
        raise RejectionError("unreadable_row", row.fault)
    target = picture_of(row.target, "target")
    subjects = finder.locate(target, row.phrases, "target")
    references = [
        finder.locate(picture_of(reference, "reference"), [phrase], "reference").crops[0]
        for reference, phrase in zip(row.references, row.phrases, strict=True)
    ]
    height, width = target.shape[:2]
    size, numbered = (width, height), list(enumerate(subjects.boxes))
    closeups = [closeup(target, subjects.wholes, box, number) for number, box in numbered]
    masks = [
        crop_masks(subjects.masks[[number]], closeup_window(box, height, width), size)[0] for number, box in numbered
    ]
    names = [thing_name(*each) for each in zip(row.references, row.phrases, strict=True)]
    return CutSample(
        key=row.key, caption=row.prompt,
        provenance={"row": row.key, "phrases": [*row.phrases], "things": [*names], **dict(row.origin)},
        target=target, masks=subjects.masks, body_masks=subjects.wholes, references=np.stack(references),
        closeups=np.stack([resize(each, size) for each in closeups]), closeup_masks=np.stack(masks),
        closeup_captions=tuple(map(with_article, row.phrases)),
    )  # fmt: skip
