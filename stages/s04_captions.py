"""Stage 4: a sentence that describes everyone in the target, written with sight of the references."""

from pathlib import Path

from pydantic import Field

from mcpipe.curate.captions import CAPTION_INSTRUCTION, SentenceParams, caption_fault
from mcpipe.curate.samples import face_crop, square_window
from mcpipe.engine import kept
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.protocols import Captioner
from mcpipe.records import Record, Rejection
from mcpipe.report import Report
from mcpipe.shards import join_shards, read_shards, whole_folder, write_shards


class CaptionsParams(SentenceParams):
    """Captions of the samples."""

    reference_size: int = Field(ge=28)
    """Side in pixels at which the captioner sees a face reference."""
    records_per_shard: int = Field(ge=1)


def run(frames: Path, subjects: Path, identity: Path, captioner: Path, captions: Path, params: CaptionsParams) -> None:
    """Write a caption for every verified clip whose captioner finds one."""
    writer = Qwen2_5VL(captioner)
    report = Report("captions", ("transformers", "qwen-vl-utils"))

    def decide(records: tuple[Record, ...]) -> Record | Rejection:
        of_frames, of_subjects, of_identity = records
        return captioned(of_frames, of_subjects, of_identity, writer, params)

    total = sum(1 for _ in read_shards(identity))
    items = ((records[0].key, records) for records in join_shards(frames, subjects, identity))
    with whole_folder(captions) as folder:
        write_shards(kept(items, total, decide, report), folder, params.records_per_shard)
        report.write(folder)


def captioned(
    frames: Record, subjects: Record, identity: Record, writer: Captioner, params: CaptionsParams
) -> Record | Rejection:
    """The caption of one clip, or why it has none."""
    middle = frames.arrays["middle"]
    window = square_window(subjects.arrays["boxes"][1], *middle.shape[:2])
    if window is None:
        return Rejection("no_square_holds_all", "the people stand wider than the frame is high")
    x, y, side = window
    references = [
        face_crop(frames.arrays["initial"], box, params.reference_size) for box in identity.arrays["face_boxes"][0]
    ]
    pictures = [*references, middle[y : y + side, x : x + side]]
    instruction = CAPTION_INSTRUCTION.format(num_subjects=len(references))
    caption, fault = "", None
    for attempt in range(params.attempts):
        caption = writer.answer(
            pictures,
            instruction,
            temperature=params.temperature if attempt else 0.0,
            seed=params.seed + attempt,
            max_tokens=params.max_tokens,
        )
        fault = caption_fault(caption, len(references), params)
        if fault is None:
            return Record(frames.key, {"caption": caption})
    return Rejection(fault or "caption_missing", caption)
