"""Training samples of objects from rows of references, a target and a prompt (paper, section 4.4 and appendix B).

Every object is located by its phrase in its reference and in the target, and segmented there; a row is refused by name
if anything about it is missing or doubtful.

Departures from the paper, which says of its filter only that Qwen2.5-VL is used: the questions stand in the settings,
and each is answered by yes or no.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mcpipe.core.records import JSON, RejectionError
from mcpipe.core.report import Report
from mcpipe.core.schemas.curation import CutSample, Sample
from mcpipe.core.shards import read_shards, whole_folder, write_shards
from mcpipe.curate.object_rows import ObjectItem, ObjectRow, object_items, with_article
from mcpipe.curate.objects import (
    CLOSEUP_MARGIN,
    ObjectsParams,
    check_boxes,
    check_object_masks,
    check_texts,
    held_out_rows,
    object_window,
    says_yes,
    thing_name,
)
from mcpipe.curate.samples import closeup, closeup_window, crop_masks, crop_window, resize
from mcpipe.curate.subjects import clean_masks, mask_scores
from mcpipe.execution.engine import decided
from mcpipe.execution.store import progress_of
from mcpipe.execution.workers import Decide
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.images import UnusableImageError, read_encoded_image
from mcpipe.models.protocols import Captioner, Picture
from mcpipe.report.images import data_uri
from mcpipe.steps.object_finder import ObjectFinder, ObjectModels

PACKAGES = ("transformers", "sam2", "qwen-vl-utils", "pyarrow")
CUT = "cut"
"""Folder of samples without names and split, which only all rows together determine."""
LONGEST_ANSWER = 8
"""Tokens of an answer to a question; yes or no comes first."""
THUMBNAIL_PX = 96
KEPT = "kept"


@dataclass(frozen=True)
class ObjectsWork:
    """What this stage does to every row."""

    models: ObjectModels
    judge: Path
    """Folder of the model that answers the questions."""
    params: ObjectsParams
    ask: Callable[[Path], Captioner] = Qwen2_5VL

    def load(self) -> Decide:
        """Load the models, the judge only if there are questions; the decision on one row."""
        finder = self.models.finder(self.params.min_score, self.params.reference_size)
        judge = self.ask(self.judge) if self.params.questions else None
        return partial(sample_of_objects, finder=finder, judge=judge, params=self.params)


def write_objects(work: ObjectsWork, source: Path, out: Path) -> None:
    """Write the samples of all usable rows below ``source``, with the names of their objects and the split.

    Raises:
        FileNotFoundError: the folder or a checkpoint is missing.
        ValueError: the folder, a checkpoint or a file is damaged, or too few rows are usable.
    """
    items, params = object_items(source), work.params
    report = Report("objects", PACKAGES)
    with whole_folder(out) as folder:
        cut = folder / CUT
        write_shards(decided(items, work, report, progress_of(out)), cut, params.records_per_shard)
        names = {sample.key: names_in(sample) for sample in read_shards(cut, CutSample)}
        if not names:
            raise ValueError(f"no row in {source} is usable: {report.summary()['dropped']}")
        try:
            held_out = held_out_rows(names, params.num_held_out, params.split, params.seed)
        except ValueError as error:
            raise ValueError(f"{error}; rows were refused: {report.summary()['dropped']}") from error
        completed = (completed_sample(sample, names[sample.key], held_out) for sample in read_shards(cut, CutSample))
        write_shards(completed, folder, params.records_per_shard)
        for shard in cut.iterdir():
            shard.unlink()
        cut.rmdir()
        report.facts = {
            "things": len({name for row in names.values() for name in row}),
            "train": len(names) - len(held_out),
            "val": len(held_out),
            "thumbnails": thumbnails(items, report, params.thumbnails),
        }
        report.write(folder)


def completed_sample(sample: CutSample, names: tuple[str, ...], held_out: set[str]) -> Sample:
    """A sample with the names of its objects and its part of the split."""
    return Sample(**vars(sample), names=names, split="val" if sample.key in held_out else "train")


def names_in(sample: CutSample) -> tuple[str, ...]:
    """The names of the objects of a sample, from its provenance."""
    names = sample.provenance["things"]
    assert isinstance(names, list), "written by this stage"
    return tuple(map(str, names))


def sample_of_objects(
    row: ObjectRow, finder: ObjectFinder, judge: Captioner | None, params: ObjectsParams
) -> CutSample:
    """One sample; index i is the same object in every array.

    Raises:
        RejectionError: the row is refused; `docs/objects.md` lists the reasons.
    """
    if row.fault:
        raise RejectionError("unreadable_row", row.fault)
    check_texts(row.prompt, row.phrases)
    target = picture_of(row.target, "target")
    references = [cut_reference(row, number, finder) for number in range(len(row.references))]
    boxes = located(target, row.phrases, finder, "target")
    check_boxes(boxes, row.phrases, params)
    raw = finder.raw_masks(target, boxes)
    masks = clean_masks(raw)
    check_object_masks(mask_scores(raw, masks, boxes), masks, params)
    if judge is not None:
        check_answers(target, row.phrases, judge, params.questions)
    window, (height, width) = object_window(masks, boxes), target.shape[:2]
    size, numbered = (params.image_size, params.image_size), list(enumerate(boxes))
    closeups = [closeup(target, masks, box, number, CLOSEUP_MARGIN) for number, box in numbered]
    closeup_masks = [
        crop_masks(masks[[number]], closeup_window(box, height, width, CLOSEUP_MARGIN), size)[0]
        for number, box in numbered
    ]
    provenance: dict[str, JSON] = {
        "row": row.key,
        "phrases": [*row.phrases],
        "things": [thing_name(*thing) for thing in zip(row.references, row.phrases, strict=True)],
        "window_px": list(window[:3]),
        **dict(row.origin),
    }
    return CutSample(
        key=row.key,
        caption=row.prompt,
        provenance=provenance,
        target=crop_window(target, window, size),
        masks=crop_masks(masks, window, size),
        references=np.stack(references),
        closeups=np.stack([resize(picture, size) for picture in closeups]),
        closeup_masks=np.stack(closeup_masks),
        closeup_captions=tuple(map(with_article, row.phrases)),
    )


def picture_of(content: bytes, which: str) -> Picture:
    """The image in the bytes of a file.

    Raises:
        RejectionError: ``no_picture`` or ``unreadable_picture``.
    """
    if not content:
        raise RejectionError("no_picture", f"the {which} is missing")
    try:
        return read_encoded_image(content, which)
    except UnusableImageError as error:
        raise RejectionError("unreadable_picture", f"the {which}: {error.fault}") from error


def cut_reference(row: ObjectRow, number: int, finder: ObjectFinder) -> Picture:
    """The object of a reference, on white.

    Raises:
        RejectionError: ``no_picture``, ``unreadable_picture`` or ``not_in_reference``.
    """
    picture, phrase = picture_of(row.references[number], f"reference {number}"), row.phrases[number]
    crop = finder.crop(picture, phrase)
    if crop is None:
        raise RejectionError("not_in_reference", f"{phrase!r} is not found in reference {number}")
    return crop


def located(picture: Picture, phrases: Iterable[str], finder: ObjectFinder, which: str) -> np.ndarray:
    """The boxes (objects, 4) of some phrases.

    Raises:
        RejectionError: ``not_in_target``.
    """
    boxes = []
    for phrase in phrases:
        box = finder.box(picture, phrase)
        if box is None:
            raise RejectionError("not_in_target", f"{phrase!r} is not found in the {which}")
        boxes.append(box)
    return np.stack(boxes).astype(np.float32)


def check_answers(picture: Picture, phrases: Iterable[str], judge: Captioner, questions: Iterable[str]) -> None:
    """Ask every question about every object.

    Raises:
        RejectionError: ``answered_no``, or ``no_answer`` if an answer is neither yes nor no.
    """
    for phrase in phrases:
        for question in (template.format(phrase=phrase) for template in questions):
            answer = judge.answer([picture], question, temperature=0.0, seed=0, max_tokens=LONGEST_ANSWER)
            verdict = says_yes(answer)
            if not verdict:
                raise RejectionError("no_answer" if verdict is None else "answered_no", f"{question} {answer}")


def thumbnails(items: Iterable[ObjectItem], report: Report, number: int) -> dict[str, JSON]:
    """Pictures of rows, at most ``number`` of those kept and of every reason: key and references beside the target."""
    reasons = {str(rejection["key"]): str(rejection["reason"]) for rejection in report.rejections}
    groups: dict[str, list[JSON]] = {}
    for item in items:
        group = groups.setdefault(reasons.get(item.key, KEPT), [])
        if len(group) < number:
            (row,) = item.inputs()
            group.append({"key": item.key, "pictures": pictures_of(row)})
    return {reason: groups[reason] for reason in sorted(groups)}


def pictures_of(row: ObjectRow) -> list[JSON]:
    """Small pictures of a row's references and its target; ``None`` where one cannot be read."""
    small: list[JSON] = []
    for content in (*row.references, row.target):
        try:
            small.append(data_uri(read_encoded_image(content, "picture"), THUMBNAIL_PX))
        except UnusableImageError:
            small.append(None)
    return small
