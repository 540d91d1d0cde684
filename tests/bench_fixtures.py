"""Small outputs of every stage, drawn by hand, as the report reads them."""

import json
from pathlib import Path

import av
import numpy as np
from record_fixtures import frame_pair, generated, pair_prompt, pool_face, sample_of_two
from safetensors.numpy import save_file

from mcpipe.bench.controls import CONTROLS, METRIC_OF
from mcpipe.bench.intervals import IntervalParams
from mcpipe.bench.metrics import Score
from mcpipe.core.report import Report
from mcpipe.core.schemas.benchmark import PairPrompt
from mcpipe.core.schemas.curation import FramePair, Sample
from mcpipe.core.shards import write_shards
from mcpipe.execution.fingerprint import content_digest
from mcpipe.report.gallery import ReportParams
from mcpipe.steps.evaluate import SCORED, ScoredImage, write_results

ARMS = ["train_single", "train_multi", "train_rl"]
INTERVAL = IntervalParams(resamples=200, seed=0)
REPORT = ReportParams(
    arms=ARMS, num_clips=8, num_samples=2, num_maps=2, num_prompts=3, picture_px=256, interval=INTERVAL
)
REJECTIONS = {
    "frames": {"cut": 2, "truncated_file": 1},
    "subjects": {"one_person": 1, "three_people": 2},
    "identity": {"different_person": 2, "no_face": 1},
    "captions": {"caption_wrong_count": 1},
    "samples": {},
    "encode": {},
}
LANDMARKS = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.2], [0.15, 0.2]], np.float32)
HOSTILE = '<script>alert("x")</script> & a person with a <b>hat</b>'
FOLDERS = (
    "clips",
    "frames",
    "subjects",
    "identity",
    "captions",
    "samples",
    "encode",
    "models",
    "pairs",
    "images",
    "results",
    "ablation",
)

DREAM = [
    {"prompt": "a mug and a cat on the moon", "image_paths": ["./photos/mug/02.jpg", "./photos/cat/00.jpg"]},
    {"prompt": "a mug and a cat", "image_paths": ["./photos/mug/02.jpg", "./photos/cat/00.jpg"]},
]


def scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two round heads on shoulders: picture, body masks, face masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3))
    picture[:] = rng.integers(90, 220, 3) * (0.75 + 0.25 * (y / height)[:, :, None])
    bodies, faces = [], []
    for i in range(2):
        cx, cy, r = (0.3 + 0.4 * i) * width, 0.42 * height, 0.13 * height
        face = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        shoulders = ((x - cx) / (1.6 * r)) ** 2 + ((y - height) / (0.45 * height)) ** 2 < 1
        picture[shoulders] = rng.integers(40, 230, 3)
        picture[face] = rng.integers(120, 240, 3)
        for side in (-1, 1):
            picture[(x - cx - side * r / 2.5) ** 2 + (y - cy + r / 5) ** 2 < (r / 7) ** 2] = 30
        bodies.append(face | (shoulders & ~face))
        faces.append(face)
    return picture.round().astype(np.uint8), np.stack(bodies), np.stack(faces)


def write_outputs(root: Path) -> list[Path]:
    """Outputs of a whole run; returns the paths that the report stage takes, in order."""
    write_curation(root)
    write_clips(root / "clips")
    write_models(root / "models")
    write_suite(root)
    write_ablation(root / "ablation")
    return [root / name for name in FOLDERS]


def write_curation(root: Path) -> None:
    num_clips = 20
    keys = [f"clip-{i:02d}" for i in range(num_clips)]
    alive = list(keys)
    for stage, reasons in REJECTIONS.items():
        report = Report(stage, ("numpy",))
        for reason, count in reasons.items():
            for _ in range(count):
                report.drop(alive.pop(), reason, f"seen {HOSTILE}")
        for key in alive:
            report.keep(key)
        (root / stage).mkdir(parents=True)
        report.write(root / stage)
        if stage == "frames":
            write_shards([clip(key, i) for i, key in enumerate(alive)], root / stage, 8)
    write_shards([sample(key, i) for i, key in enumerate(alive)], root / "samples", 8)


def write_clips(clips: Path) -> None:
    """The files of two clips that were refused at once: one is a video, one is none."""
    clips.mkdir()
    (clips / "clip-17").write_bytes(b"no video")
    with av.open(str(clips / "clip-18"), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for seed in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene(seed, 120, 160)[0], format="rgb24")))
        container.mux(stream.encode())


def clip(key: str, seed: int) -> FramePair:
    return frame_pair(key, scene(seed, 120, 160)[0])


def sample(key: str, seed: int) -> Sample:
    picture, bodies, faces = scene(seed, 96, 96)
    crops = np.stack([picture[24:56, 12:44], picture[24:56, 52:84]])
    caption = f"two people in a park: {HOSTILE}" if seed == 0 else "two people in a park: a person, a person"
    names = (f"person-{2 * seed:05d}", f"person-{2 * seed + 1:05d}")
    return sample_of_two(key, picture, faces, crops, caption=caption, names=names, body_masks=bodies)


def write_ablation(folder: Path) -> None:
    """Two arms, one step that comes out, one that does not, and a figure that explains it."""
    interval = {"value": 0.3, "low": 0.2, "high": 0.4}
    arms = [{"name": "plain", "title": "plain LoRA"}, {"name": "idar", "title": f"+ IDAR {HOSTILE}"}]
    steps = {"face_sim": 0.35, "clip_t": 0.01, "overall": None}
    shared = {"before": "plain", "after": "idar"}
    doubtful = {"value": 0.0, "low": -0.2, "high": 0.2}
    content = {
        "commit": "0123456789abcdef",
        "plan": {"seeds": [0, 1], "settings": {"world.good_clips": 200}, "arms": arms, "jobs": 2},
        "prompts": 24,
        "means": {arm["name"]: {"clip_t": interval, "face_sim": interval, "overall": interval} for arm in arms},
        "changes": [
            {**shared, "metric": metric, "change": doubtful if published == 0.01 else interval, "published": published}
            for metric, published in steps.items()
        ],
        "verdicts": {"comes out": 1, "undecided": 1, "reversed": 0},
        "diagnosis": {"attention inside the right face": {"idar": {"value": 0.14, "low": 0.125, "high": 0.15}}},
    }
    folder.mkdir()
    (folder / "ablation.json").write_text(json.dumps(content), encoding="utf-8")


def write_models(models: Path) -> None:
    for seed, arm in enumerate(ARMS):
        metrics = models / arm / "live" / "plots" / "metrics"
        metrics.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for name in ("flow", "reward_identity") if seed else ("flow",):
            values = np.exp(-np.arange(40) / 15) + 0.1 * rng.random(40) + 0.4
            lines = [f"step\t{name}", *(f"{step}\t{value}" for step, value in enumerate(values))]
            (metrics / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        report = Report(arm, ("numpy",))
        report.facts = {"steps": 40}
        if arm == "train_multi":
            some, even = [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]
            shares = {"blocks.0": {"text": some, "picture": even, "references": some}, "blocks.1": even}
            report.facts["held_out"] = {"after": {"expert_shares": shares}}
        report.write(models / arm)
    faces = scene(3, 96, 96)[2]
    (models / "train_multi" / "attention").mkdir()
    coarse = faces.reshape(2, 12, 8, 12, 8).mean(axis=(2, 4)) >= 0.5
    heat = (coarse * 0.02 + 0.001).astype(np.float32)
    before = np.full_like(heat, 1 / 144)
    maps = {"before": before, "after": heat, "masks": coarse}
    save_file(maps, models / "train_multi" / "attention" / "clip-03.safetensors")


def write_suite(root: Path) -> None:
    pairs = root / "pairs"
    faces = [f"face-{i}" for i in range(4)]
    pictures = [
        pool_face(key, scene(i, 48, 48)[0], embedding=np.eye(4)[i], landmarks=LANDMARKS) for i, key in enumerate(faces)
    ]
    write_shards(pictures, pairs / "faces", 8)
    report = Report("faces", ("numpy",))
    report.drop("face-9", "several_faces", "2 faces")
    for key in faces:
        report.keep(key)
    report.write(pairs / "faces")
    prompts = [pair_prompt(f"a person and a person {HOSTILE}", a, b) for a, b in zip(faces, faces[1:], strict=False)]
    write_shards(prompts, pairs / "bench", 8)
    report = Report("pairs", ("numpy",))
    report.drop("face-0+face-3", "caption_refusal")
    for prompt in prompts:
        report.keep(prompt.key)
    hair = {
        "pool": {"brown": 3, "red": 1},
        "bench": {"brown": 4, "red": 2},
        "rl": {"brown": 1},
        "evenness_of_pool": 0.8,
    }
    report.facts = {"attributes": {"hair": hair}}
    report.write(pairs)
    for seed, arm in enumerate(ARMS):
        write_arm(root, arm, prompts, seed)


def write_arm(root: Path, arm: str, prompts: list[PairPrompt], seed: int) -> None:
    drawn = [generated(prompt, scene(10 * seed + i, 96, 96)[0], seed=i) for i, prompt in enumerate(prompts)]
    write_shards(drawn, root / "images" / arm, 8)
    for kind in METRIC_OF if arm == ARMS[-1] else ():
        write_shards(drawn, root / "images" / arm / CONTROLS / kind, 8)
    write_results_of(root / "results" / arm, prompts, [some_score(seed, i) for i in range(len(prompts))], "evaluate")
    report = Report("generate", ("numpy",))
    for prompt in prompts:
        report.keep(prompt.key)
    report.facts = {"num_steps": 8}
    report.write(root / "images" / arm)


def some_score(seed: int, i: int) -> Score:
    """A picture in which both people were found, better in later arms."""
    face_sim = 0.1 * seed + 0.05 * i
    paper = {"clip_t": 0.2 + 0.01 * i, "face_sim": face_sim, "dino_i": 0.5, "clip_i": 0.6, "hps": 0.21}
    faults = {"swap_rate": 0.0, "copy_paste": 0.1, "copy_pose": 0.1, "copy_background": 0.1}
    rates = {"detection_rate": 1.0, "num_faces": 2, "same": [face_sim, face_sim], "cross": [0.02, -0.03]}
    if seed == len(ARMS) - 1:
        rates |= {"face_sim_others": 0.04, "face_sim_floor": 0.0321, "face_sim_swapped": face_sim}
    return Score(**paper, overall=sum(paper.values()) / 5, face_sim_heldout=face_sim / 2, **faults, **rates)


def write_results_of(
    folder: Path, prompts: list[PairPrompt], scores: list[Score], stage: str, judge: str = "puppet"
) -> None:
    report = Report(stage, ("numpy",))
    for prompt in prompts:
        report.keep(prompt.key)
    report.facts = {"suite": "mcpipe", "num_steps": 8}
    judged = [
        ScoredImage(prompt.key, prompt.prompt, prompt.key, SCORED, score)
        for prompt, score in zip(prompts, scores, strict=True)
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    footing = {"prompts": content_digest({p.key: p.prompt for p in prompts}), "models.faces": judge}
    write_results(folder, judged, report, INTERVAL, footing)
