"""``mcpipe score``: any folder of pictures in the same table, what is missing named and counted."""

import argparse
import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from bench_fixtures import DREAM, scene, write_suite
from fake_scorers import Encoder, Finder, Heldout, Scorer, metric_scorers
from imports import ROOT
from PIL import Image

from mcpipe.bench.tables import POLICY, POLICY_PUBLIC
from mcpipe.cli import score as scoring
from mcpipe.cli.__main__ import scoring_arguments
from mcpipe.cli.score import command, files_by_prompt
from mcpipe.cli.table import command as benchmark_table
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import PairPrompt, PoolFace
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.models.images import read_image

PROMPTS = ["face-0+face-1", "face-1+face-2", "face-2+face-3"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the benchmark and settings, and judges that need no checkpoint."""
    write_suite(tmp_path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["models"] = dict.fromkeys((*scoring.MODELS, *scoring.REWARD_MODELS), "none")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "theirs").mkdir()
    finder = Finder(np.eye(4)[:2, :3])
    finder.embeddings = np.eye(4)[:2]
    finder.name = "eyes"
    heldout = Heldout()
    heldout.name = "others"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scoring, "load_scorers", lambda *_, **__: metric_scorers(finder, heldout))
    for name in ("Clip", "Dino"):
        monkeypatch.setattr(scoring, name, lambda _: Encoder())
    monkeypatch.setattr(scoring, "HpsV2_1", lambda _: Scorer())
    return tmp_path


def draw(place, *names):
    for seed, name in enumerate(names):
        Image.fromarray(scene(seed, 16, 16)[0]).save(place / "theirs" / name)


def score(*arguments):
    parser = argparse.ArgumentParser()
    scoring_arguments(parser)
    chosen = {"--suite": "mcpipe", "--images": "theirs", "--name": "theirs", "--out": "results", "--pairs": "pairs"}
    chosen |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    return command(parser.parse_args([word for pair in chosen.items() for word in pair]))


def rows(place, name="theirs"):
    return pq.read_table(place / "results" / name / "rows.parquet").to_pylist()


def test_missing_and_broken_pictures_are_named_counted_and_score_zero(place):
    draw(place, f"{PROMPTS[0]}.png", "stranger.png")
    (place / "theirs" / f"{PROMPTS[1]}.jpg").write_bytes(b"no picture")
    said = score()
    assert f"1 missing, scored 0: {PROMPTS[2]}" in said
    assert f"1 unreadable, scored 0: {PROMPTS[1]}.jpg" in said
    assert "1 files answer no prompt and are not scored: stranger.png" in said
    assert "counts 0 and stays in the mean" in said
    there, broken, missing = rows(place)
    assert [row["status"] for row in (there, broken, missing)] == ["scored", "unreadable", "missing"]
    for metric in ("clip_t", "face_sim", "dino_i", "clip_i", "hps", "overall", "detection_rate", "face_sim_heldout"):
        assert broken[metric] == missing[metric] == 0, metric
    assert there["clip_t"] > 0
    assert broken["swap_rate"] is missing["copy_paste"] is None
    metrics = json.loads((place / "results" / "theirs" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["num_images"], metrics["num_missing"]) == (3, 2)
    assert metrics["clip_t"] == pytest.approx(there["clip_t"] / 3, abs=1e-6)
    report = read_report(place / "results" / "theirs")
    assert report["dropped"] == {"missing": 1, "unreadable": 1}
    assert report["facts"]["files_without_prompt"] == ["stranger.png"]


def test_the_optional_preference_stands_in_the_table_and_missing_pictures_count_zero(place, monkeypatch):
    """The folder is relative to the settings; its digest, not its name, decides what is comparable."""
    seen, without = [], scoring.load_scorers()

    def load(*_, params, **__):
        seen.append(params.pick_score)
        return replace(without, pick_score=Scorer())

    monkeypatch.setattr(scoring, "load_scorers", load)
    (place / "picks").write_text("weights", encoding="utf-8")
    draw(place, f"{PROMPTS[0]}.png")
    assert "PickScore" in score("-S", "evaluate.pick_score=picks")
    assert seen == [str(place / "picks")]
    assert [row["pick_score"] for row in rows(place)] == [0.28, 0, 0]
    footing = json.loads((place / "results" / "theirs" / "metrics.json").read_text(encoding="utf-8"))["footing"]
    assert {
        "models.pick_score",
        "models.hps",
        "models.reward_hps",
        "models.clip",
        "models.reward_clip",
    } <= footing.keys()
    assert "evaluate.pick_score" not in footing


def test_people_who_are_known_have_known_scores_and_the_same_bytes_every_time(place):
    """The people found are always the first two of the pool: Face-Sim is known for every pair."""
    draw(place, *(f"{key}.png" for key in PROMPTS))
    score()
    assert [row["face_sim"] for row in rows(place)] == pytest.approx([1, 0.5, 0])
    assert [row["same"] for row in rows(place)] == [[1, 1], [1, 0], [0, 0]]
    assert [row["cross"] for row in rows(place)][0] == [0, 0]
    first = {file.name: file.read_bytes() for file in (place / "results" / "theirs").iterdir()}
    score()
    assert {file.name: file.read_bytes() for file in (place / "results" / "theirs").iterdir()} == first


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--name", "zz"), None),
        (("-S", "evaluate.min_face_score=0.95"), "evaluate.min_face_score"),
        (("-S", "models.faces=weights"), "models.faces"),
        (("--pairs", "fewer"), "prompts"),
        (("--pairs", "others"), "references"),
    ],
)
def test_a_table_holds_only_what_was_judged_on_the_same_prompts_by_the_same_judges(place, changed, named):
    (place / "weights").write_text("of another recogniser", encoding="utf-8")
    for name in ("fewer", "others"):
        shutil.copytree(place / "pairs", place / name)
    write_shards(list(read_shards(place / "pairs" / "bench"))[:2], place / "fewer" / "bench", 8)
    faces = list(read_shards(place / "pairs" / "faces", PoolFace))
    painted = [replace(face, reference=255 - face.reference) for face in faces]
    write_shards(painted, place / "others" / "faces", 8)
    draw(place, *(f"{key}.png" for key in PROMPTS))
    score("--out", "elsewhere")
    score("--out", "elsewhere", "--name", "zz", *changed)
    said = benchmark_table(argparse.Namespace(results=place / "elsewhere")).splitlines()
    left_out = [line for line in said if "left out" in line]
    assert [line.split()[0] for line in said[1:3]] == (["theirs", "zz"] if named is None else ["theirs", "A"])
    assert left_out == ([] if named is None else [
        f"zz is left out: not the same {named} as theirs; evaluate or score it again"
    ])  # fmt: skip


def test_public_suites_are_compared_by_their_own_prompts_references_and_judges(place):
    (place / "dream.json").write_text(json.dumps(DREAM), encoding="utf-8-sig")
    draw(place, "0000.png", "0001.png")
    for name in ("theirs", "zz"):
        (place / name / "photos" / "mug").mkdir(parents=True)
        Image.fromarray(scene(len(name), 16, 16)[0]).save(place / name / "photos" / "mug" / "02.jpg")
        chosen = ("--suite", "dreambench", "--prompts", "dream.json", "--references", name, "--name", name)
        score(*chosen, "--out", "elsewhere", "-S", "models.faces=unused")
    said = benchmark_table(argparse.Namespace(results=place / "elsewhere"))
    assert "zz is left out: not the same references as theirs" in said
    assert POLICY_PUBLIC in said
    assert POLICY not in said


def test_a_single_subject_is_compared_with_all_its_images_and_published_rows_stand_below(place):
    prompts = [{"prompt": f"a {name} here", "image_paths": [f"{name}/0.png"]} for name in ("mug", "cat")]
    (place / "single.json").write_text(json.dumps(prompts), encoding="utf-8")
    for seed, name in enumerate(("mug/0.png", "mug/1.png", "cat/0.png")):
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(seed, 16, 16)[0]).save(place / "photos" / name)
    (place / "photos" / "mug" / "note.txt").write_text("no image", encoding="utf-8")
    draw(place, "0000.png", "0001.png")
    said = score("--suite", "dreambench-single", "--prompts", "single.json", "--references", "photos")
    mug, other, cat = Encoder().pictures([scene(seed, 16, 16)[0] for seed in range(3)])
    mug_score, cat_score = (row["dino_i"] for row in rows(place))
    assert mug_score == pytest.approx((1 + mug @ other) / 2), "the image is the first of two of the mug"
    assert cat_score == pytest.approx(other @ cat)
    assert "UNO + FocusDPO" in said.split("published, not comparable")[1]


def test_several_pictures_of_a_prompt_count_as_one(place):
    draw(place, f"{PROMPTS[0]}_0.png", f"{PROMPTS[0]}_1.png", f"{PROMPTS[1]}.png", f"{PROMPTS[2]}.webp")
    score()
    assert [row["key"] for row in rows(place)] == [PROMPTS[0], *PROMPTS]
    metrics = json.loads((place / "results" / "theirs" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_images"] == 4
    assert metrics["face_sim"] == pytest.approx(1.5 / 3)


def test_results_of_the_pipeline_are_not_overwritten(place):
    before = (place / "results" / "train_rl" / "metrics.json").read_bytes()
    with pytest.raises(ValueError, match="arm of the pipeline"):
        score("--name", "train_rl")
    for name in ("../x", "", ".hidden"):
        with pytest.raises(ValueError, match="--name"):
            score("--name", name)
    assert (place / "results" / "train_rl" / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{}", "[]", "{"])
def test_a_folder_whose_report_is_damaged_is_not_overwritten(place, content):
    (place / "results" / "theirs").mkdir()
    if content is not None:
        (place / "results" / "theirs" / "report.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"results/theirs/report\.json.*; or remove results/theirs, or choose another"):
        score()


def test_faults_of_the_command_line_are_told(place):
    with pytest.raises(FileNotFoundError, match="no folder of pictures nowhere"):
        score("--images", "nowhere")
    with pytest.raises(ValueError, match="needs its published prompt file"):
        score("--suite", "dreambench")
    with pytest.raises(ValueError, match=r"evaluate\.interval\.resamples"):
        score("-S", "evaluate.interval.resamples=3")
    (place / "wrong.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"wrong\.json is no prompt file of dreambench"):
        score("--suite", "dreambench", "--prompts", "wrong.json")
    assert not (place / "results" / "theirs").exists()


def test_a_public_suite_uses_the_references_that_are_there(place):
    (place / "dream.json").write_text(
        json.dumps([*DREAM, {"prompt": "a dog", "image_paths": ["./photos/dog/01.jpg"]}]), encoding="utf-8"
    )
    for name in ("mug/02.jpg", "cat/00.jpg"):
        (place / "given" / "photos" / name).parent.mkdir(parents=True)
        Image.fromarray(scene(5, 16, 16)[0]).save(place / "given" / "photos" / name)
    draw(place, "0000.png", "0002.png")
    said = score("--suite", "dreambench", "--prompts", "dream.json", "--references", "given")
    assert "1 references are not there; their prompts have CLIP-T and HPS only: ./photos/dog/01.jpg" in said
    there, lost, bare = rows(place)
    assert 0 < there["dino_i"] <= 1
    assert (lost["status"], lost["dino_i"], lost["face_sim"]) == ("missing", 0, None)
    assert bare["dino_i"] is bare["overall"] is None
    assert bare["clip_t"] > 0
    metrics = json.loads((place / "results" / "theirs" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["suite"] == "dreambench"
    assert "face_sim" not in metrics
    with pytest.raises(FileNotFoundError, match="no folder of references"):
        score("--suite", "dreambench", "--prompts", "dream.json", "--references", "nowhere")


def test_a_handout_tells_another_system_everything_it_needs(place):
    parser = argparse.ArgumentParser()
    scoring_arguments(parser)
    command(parser.parse_args(["--suite", "mcpipe", "--pairs", "pairs", "--handout", "given"]))
    with (place / "given" / "prompts.csv").open(newline="", encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    assert [line["key"] for line in table] == PROMPTS
    assert table[1]["prompt"] == next(read_shards(place / "pairs" / "bench", PairPrompt)).prompt
    faces = [read_image(place / "given" / face) for face in table[1]["faces"].split()]
    pool = {face.key: face.reference for face in read_shards(place / "pairs" / "faces", PoolFace)}
    assert [np.array_equal(*pair) for pair in zip(faces, (pool["face-1"], pool["face-2"]), strict=True)] == [True, True]
    with pytest.raises(ValueError, match="exists; name a new folder"):
        command(parser.parse_args(["--suite", "mcpipe", "--pairs", "pairs", "--handout", "given"]))
    with pytest.raises(ValueError, match="takes --images DIR and --name"):
        command(parser.parse_args(["--suite", "mcpipe", "--pairs", "pairs"]))


def test_files_belong_to_the_prompt_they_are_called_after(tmp_path):
    for name in ("a.png", "a_1.png", "a_1_0.JPG", "b_x.png", "c.txt"):
        (tmp_path / name).touch()
    files, unknown = files_by_prompt(tmp_path, {"a", "a_1", "b"})
    assert {key: [file.name for file in some] for key, some in files.items()} == {
        "a": ["a.png"], "a_1": ["a_1.png", "a_1_0.JPG"]
    }  # fmt: skip
    assert [file.name for file in unknown] == ["b_x.png", "c.txt"]


def test_a_file_that_may_answer_either_of_two_prompts_is_refused(tmp_path):
    """Portraits called ``bo`` and ``bo_1`` make the keys ``ada+bo`` and ``ada+bo_1``."""
    keys = {"ada+bo", "ada+bo_1"}
    for name in ("ada+bo.png", "ada+bo_1.png"):
        (tmp_path / name).touch()
    files, _ = files_by_prompt(tmp_path, keys)
    assert {key: [file.name for file in some] for key, some in files.items()} == {
        "ada+bo": ["ada+bo.png"], "ada+bo_1": ["ada+bo_1.png"]
    }  # fmt: skip
    (tmp_path / "ada+bo.png").rename(tmp_path / "ada+bo_0.png")
    with pytest.raises(ValueError, match=r"ada\+bo_1 in .* may be the one of the prompt ada\+bo_1 or .* of ada\+bo;"):
        files_by_prompt(tmp_path, keys)
    assert len(files_by_prompt(tmp_path, {"ada+bo"})[0]["ada+bo"]) == 2
    (tmp_path / "ada+bo_1.png").rename(tmp_path / "ada+bo_1_0.png")
    assert set(files_by_prompt(tmp_path, keys)[0]) == keys


@pytest.mark.parametrize("names", [(), ("stranger.png",)])
def test_a_folder_that_answers_no_prompt_is_refused_and_nothing_is_written(place, names):
    draw(place, *names)
    (place / "theirs" / f"{PROMPTS[0]}.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"no file in theirs answers a prompt; .*such as face-0\+face-1\.png"):
        score()
    assert not (place / "results" / "theirs").exists()


def test_images_of_any_ending_are_scored_and_other_files_are_named(place):
    draw(place, f"{PROMPTS[0]}.bmp", f"{PROMPTS[1]}.TIFF")
    (place / "theirs" / f"{PROMPTS[0]}.json").write_text("{}", encoding="utf-8")
    (place / "theirs" / f"{PROMPTS[1]}_1.png").symlink_to(place / "nowhere.png")
    said = score()
    assert f"1 files answer no prompt and are not scored: {PROMPTS[0]}.json" in said
    assert f"1 missing, scored 0: {PROMPTS[2]}" in said
    assert f"1 unreadable, scored 0: {PROMPTS[1]}_1.png" in said
    assert [(row["picture"], row["status"]) for row in rows(place)][:2] == [
        (f"{PROMPTS[0]}.bmp", "scored"), (f"{PROMPTS[1]}.TIFF", "scored")
    ]  # fmt: skip
