"""Curation of any folder of clips, outside of the pipeline's own data: all data stages, then one row per file.

``OUT`` receives the outputs of the stages ``frames`` to ``samples``, and ``funnel.json``, which lists for every file
whether it is accepted, the stage and the reason of its rejection, and its measurements. A later run resumes an
interrupted one.
"""

import argparse
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from mcpipe.cli.outputs import Output, check_outputs, lying_in
from mcpipe.cli.settings import SETTINGS, located, read_content, settings_file
from mcpipe.core.offline import stay_offline
from mcpipe.core.params import Params, check_params, section_content
from mcpipe.core.records import JSON
from mcpipe.core.report import read_report
from mcpipe.core.shards import read_packed
from mcpipe.curate.clips import ClipFile, file_names
from mcpipe.curate.frames import FramesParams
from mcpipe.curate.identity import IdentityParams
from mcpipe.curate.samples import SamplesParams
from mcpipe.curate.subjects import SubjectsParams
from mcpipe.execution.store import progress_of
from mcpipe.models.captioner import Qwen2_5VL
from mcpipe.models.faces import InsightFaces
from mcpipe.models.pose import ClipPoseDetector, UltralyticsPose
from mcpipe.models.protocols import Captioner, FaceAnalyser
from mcpipe.models.segmenter import ClipSegmenter, Sam2
from mcpipe.models.text_limit import FOLDER as T5_FOLDER
from mcpipe.steps.captions import CaptionsParams, CaptionsWork, write_captions
from mcpipe.steps.frames import FramesWork, write_frames
from mcpipe.steps.identity import IdentityWork, write_identity
from mcpipe.steps.samples import SamplesWork, write_samples
from mcpipe.steps.settings import SECTIONS
from mcpipe.steps.subjects import SubjectsWork, write_subjects

STAGES = ("frames", "subjects", "identity", "captions", "samples")
SAMPLE_SCORES = ("split", "names")
"""Measurements that a row takes from a sample; the others repeat earlier stages."""

FUNNEL = "funnel.json"
STORAGE = "storage"
"""Section of the values that all stages share."""
CLIPS = "the clips in"
"""Name of the folder of clips in messages."""
SHARD, VERDICT = "shard-00000.tar", f"captions/{'0' * 32}/.{'0' * 64}.1234567"
"""Names of the maximum length in a stage's folder and in the folder of its progress."""

FunnelRow = dict[str, JSON]
"""Outcome of one file, as JSON."""

ACCEPTED: FunnelRow = {"accepted": True, "reason": None, "stage": None, "detail": ""}


class Models(Params):
    """Paths of the checkpoints of curation."""

    pose: str
    segmenter: str
    faces: str
    captioner: str
    generator: str
    """Generator whose tokeniser limits the length of captions."""


class CurationSettings(Params):
    """The sections of params.yaml that curation reads."""

    models: Models
    frames: FramesParams
    subjects: SubjectsParams
    identity: IdentityParams
    captions: CaptionsParams
    samples: SamplesParams


@dataclass(frozen=True)
class Adapters:
    """Loaders of checkpoints: functions that another process can import by their names."""

    pose: Callable[[Path, float], ClipPoseDetector] = UltralyticsPose
    segmenter: Callable[[Path], ClipSegmenter] = Sam2
    faces: Callable[[Path, float, int], FaceAnalyser] = InsightFaces
    captioner: Callable[[Path], Captioner] = Qwen2_5VL


def command(options: argparse.Namespace, make: Adapters = Adapters()) -> Table:  # noqa: B008  frozen
    """Run the verb; returns the funnel to print.

    Clips of unknown origin may hang or crash a decoder, so the work runs in processes that can be killed, unless
    ``MCPIPE_ENGINE`` names another engine.
    """
    stay_offline()
    os.environ.setdefault("MCPIPE_ENGINE", "pool")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("mcpipe").setLevel(os.environ.get("MCPIPE_LOG", "INFO"))
    return table(curate(options.clips, options.out, read_settings(settings_file(), options.changes), make), options.out)


def read_settings(file: Path, changes: Sequence[str]) -> CurationSettings:
    """The settings of a file with changes ``section.key=value``; `read_content` defines the base of relative paths.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a change names no setting of curation, or a setting is missing or out of range.
    """
    for change in changes:
        if change.partition("=")[0].partition(".")[0] not in (
            known_sections := (*CurationSettings.model_fields, STORAGE)
        ):
            known = ", ".join(known_sections)
            raise ValueError(f"-S {change}: should be SECTION.KEY=VALUE, a setting of {SETTINGS} in one of {known}")
    content = read_content(file, None, changes)
    models = {name: str(path) for name, path in located(content, file.parent).items() if name in Models.model_fields}
    sections: dict[str, object] = {name: section_content(content, name, SECTIONS[name]) for name in STAGES}
    return check_params(sections | {"models": models}, CurationSettings)


def curate(clips: Path, out: Path, settings: CurationSettings, make: Adapters = Adapters()) -> list[FunnelRow]:  # noqa: B008  frozen
    """Run the data stages on a folder of clips; writes and returns the funnel, one row per file.

    Raises:
        FileNotFoundError: the folder of clips or a checkpoint is missing, or the folder holds no file.
        ValueError: a checkpoint is damaged, or ``out`` holds other files than curation's, clips or checkpoints.
        OSError: ``out`` cannot be written.

    """
    if not clips.is_dir():
        raise FileNotFoundError(f"no folder of clips {clips}")
    check_out(out)
    models = {name: Path(path) for name, path in settings.models.model_dump().items()}
    for name, path in models.items():
        if not path.exists():
            raise FileNotFoundError(f"no checkpoint {path}; set models.{name}")
    check_outputs(outputs(out), {CLIPS: clips} | {f"models.{name}": path for name, path in models.items()})
    files = clip_files(clips, out)
    frames, subjects, identity, captions, samples = (out / stage for stage in STAGES)
    write_frames(FramesWork(settings.frames), files, frames)
    people = SubjectsWork(models["pose"], models["segmenter"], settings.subjects, make.pose, make.segmenter)
    write_subjects(people, frames, subjects)
    write_identity(IdentityWork(models["faces"], settings.identity, make.faces), frames, subjects, identity)
    sentences = CaptionsWork(models["captioner"], models["generator"] / T5_FOLDER, settings.captions, make.captioner)
    write_captions(sentences, frames, subjects, identity, captions)
    write_samples(SamplesWork(settings.samples), (frames, subjects, identity, captions), samples)
    rows = funnel(files, out)
    unfinished = out / ".funnel.unfinished"
    unfinished.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(out / FUNNEL)
    return rows


def outputs(out: Path) -> list[Output]:
    """All outputs of curation; they may lie in the folder of clips, since `clip_files` leaves them out."""
    among = frozenset({CLIPS})
    return [
        *(Output("--out", out / stage, "folder", SHARD, among) for stage in STAGES),
        Output("--out", progress_of(out / STAGES[0]).parent, "store", VERDICT, among),
        Output("--out", out / FUNNEL, "file", may_lie_in=among),
    ]


def check_out(out: Path) -> None:
    """Check that only outputs of an earlier run would be replaced.

    Raises:
        ValueError: a place holds something else.
    """
    places = {out / stage: _is_free(out / stage) or _is_output(out / stage, stage) for stage in STAGES}
    places[out / FUNNEL] = not (out / FUNNEL).exists() or _is_funnel(out / FUNNEL)
    for place, replaceable in places.items():
        if not replaceable:
            raise ValueError(f"{place} was not written by mcpipe curate, which would replace it; choose another --out")


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _is_output(folder: Path, stage: str) -> bool:
    """Whether a stage wrote the folder."""
    # A run that is killed while it replaces the folder leaves parts of the old one, and the new one beside it.
    for place in (folder, folder.with_name(f".{folder.name}.unfinished")):
        try:
            if read_report(place)["stage"] == stage:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _is_funnel(file: Path) -> bool:
    """Whether a file is a funnel."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= ACCEPTED.keys() for row in rows)


def clip_files(clips: Path, out: Path) -> list[ClipFile]:
    """Every file of a folder except the outputs of curation in ``out``.

    Raises:
        FileNotFoundError: the folder is empty.
        ValueError: ``out`` holds others of these files.
    """
    clip_list = [ClipFile(clips, name) for name in file_names(clips)]
    if not clip_list:
        raise FileNotFoundError(f"no file in {clips}")
    own = lying_in([clip.file for clip in clip_list], [place for output in outputs(out) for place in output.written()])
    files = [clip for clip in clip_list if clip.file not in own]
    over = lying_in([clip.file for clip in files], [out])
    if over:
        raise ValueError(f"--out {out} lies over the clips in {clips}, such as {min(over)}; choose another folder")
    return files


def funnel(files: Sequence[ClipFile], out: Path) -> list[FunnelRow]:
    """The outcome of every file, from the outputs of all stages."""
    fates: dict[str, FunnelRow] = {}
    scores: dict[str, FunnelRow] = {}
    for stage in STAGES:
        for packed in read_packed(out / stage):
            measured = {
                name: value for name, value in packed.meta.items() if stage != "samples" or name in SAMPLE_SCORES
            }
            scores.setdefault(packed.key, {}).update(measured)
        rejections = read_report(out / stage)["rejections"]
        for rejection in rejections if isinstance(rejections, list) else []:
            match rejection:
                case {"key": str(key), "reason": reason, "detail": detail, **others}:
                    fates[key] = {"accepted": False, "reason": reason, "stage": stage, "detail": detail}
                    scores.setdefault(key, {}).update(*others.values())
    rows = []
    for file in files:
        fate = fates.get(file.key, ACCEPTED)
        measured = {name: value for name, value in scores.get(file.key, {}).items() if name != "clip"}
        rows.append({"clip": file.title, **fate, "scores": measured})
    return rows


def table(rows: Sequence[FunnelRow], out: Path) -> Table:
    """The funnel as a table for a terminal."""
    grid = Table(
        "stage", "seen", "kept", "dropped", title=f"{out}: {sum(bool(row['accepted']) for row in rows)} samples"
    )
    seen = len(rows)
    for stage in STAGES:
        reasons = Counter(str(row["reason"]) for row in rows if row["stage"] == stage)
        counted = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
        grid.add_row(stage, str(seen), str(seen - reasons.total()), counted)
        seen -= reasons.total()
    return grid
