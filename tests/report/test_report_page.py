"""The report page: complete, self-contained, safe, the same every time."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from bench_fixtures import (
    ARMS,
    FOLDERS,
    HOSTILE,
    REJECTIONS,
    REPORT,
    scene,
    some_score,
    write_outputs,
    write_results_of,
)
from markupsafe import escape
from PIL import Image
from record_fixtures import generated, pair_prompt

from mcpipe.bench.intervals import Interval
from mcpipe.bench.psr.columns import POLICY as PSR_POLICY
from mcpipe.bench.tables import ArmScores, as_metrics
from mcpipe.core.report import read_report
from mcpipe.core.schemas.benchmark import PairPrompt
from mcpipe.core.shards import read_shards, write_shards
from mcpipe.report.content import Account
from mcpipe.report.figures import curve_plot, interval_plot, similarity_plot, similarity_shares, smoothed
from mcpipe.report.gallery import example, examples, extreme_keys
from mcpipe.report.images import contact_sheet, data_uri, heat_overlay, mask_overlay
from mcpipe.report.page import PAPER
from mcpipe.steps.evaluate import answers
from stages.s13_report import NUM_OVERVIEW, OVERVIEW_GAP_PX, OVERVIEW_PX, run

VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    paths = write_outputs(root)
    run(*paths, root / "report", REPORT)
    return root


@pytest.fixture(scope="module")
def html(outputs):
    return (outputs / "report" / "index.html").read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Tags must close in order; remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.images = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed_and_every_picture_is_inside_and_described(html):
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    assert len(checker.images) > 20
    for image in checker.images:
        assert image["src"].startswith("data:image/")
        assert image["alt"]
    assert not {"script", "link", "iframe"} & checker.tags
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "@import" not in html


def test_every_rejection_reason_is_named_and_counted(html):
    for reasons in REJECTIONS.values():
        for reason, count in reasons.items():
            assert f"{count} {reason.replace('_', ' ')}" in html
            assert f"<code>{reason}</code>" in html
    for reason in ("several_faces", "caption_refusal"):
        assert f"<code>{reason}</code>" in html


def test_hostile_texts_stay_texts(html):
    assert HOSTILE not in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_grid_shows_every_arm_for_every_prompt(html):
    for arm in ARMS:
        assert html.count(f'alt="picture by {arm}"') == REPORT.num_prompts
    sections = "funnel", "samples", "training", "attention", "pictures", "scores", "ablation", "published", "provenance"
    for section in sections:
        assert f'id="{section}"' in html


def test_the_last_arm_stands_beside_its_controls(html):
    table = html[html.index("What Face-Sim is worth") : html.index("Checks beyond the paper")]
    assert [label in table for label in ("Other people", "No reference", "Reordered", "Identity lift")] == [
        True, True, True, False
    ]  # fmt: skip
    assert "0.032" in table
    assert ">Face-Sim</th>" in table.split(">Other people</th>")[0], "what the controls are to be compared with"
    paper = html[html.index('<section id="scores">') : html.index("What Face-Sim is worth")]
    means = [re.findall(r"<td>([0-9.]+)", part) for part in (paper, table)]
    assert means[1][0] == means[0][PAPER.index("face_sim")], "the first arm's Face-Sim stands in both tables"
    for kind in ("no references", "other people", "swapped"):
        assert html.count(f"Preferences, {kind}</strong><br>Face-Sim 0.") == REPORT.num_prompts


def test_the_first_screen_has_the_table_and_the_best_and_worst_picture_of_each_arm(html):
    first = html[: html.index("<nav")]
    table, extremes = first[first.index("<table>") :].split("</table>")
    values = [re.findall(r"<td>([0-9.]+|&ndash;)", row) for row in table.split("<tr>")[2:]]
    assert [row[:3] for row in values] == [
        ["0.050", "&ndash;", "&ndash;"], ["0.150", "&ndash;", "&ndash;"], ["0.250", "0.032", "&ndash;"]
    ]  # fmt: skip
    assert re.search("best: 0.10.*worst: 0.00.*best: 0.20.*worst: 0.10.*best: 0.30.*worst: 0.20", extremes, re.DOTALL)
    faces = ["face-2", "face-3", "face-0", "face-1"]
    assert re.findall("reference face ([a-z0-9-]+)", extremes) == faces * len(ARMS)
    assert extremes.count("<img") == 6 * 3


def test_the_first_of_equal_pictures_stands_for_them_and_their_number_is_told():
    scores = {key: {"face_sim": value} for key, value in {"c": 0.5, "b": 0.5, "a": 0.25, "e": 0.0, "d": 0.0}.items()}
    assert extreme_keys(scores) == ("b", "d")
    assert extreme_keys({"only": {"face_sim": 0.0}}) == ("only", "only")
    prompt, picture = pair_prompt("two people", "one", "two"), scene(0, 40, 40)[0]
    of_arm = {key: some_score(0, 0).__dict__ for key in ("x", prompt.key)} | {"y": some_score(1, 0).__dict__}
    assert example(prompt, {"one": picture, "two": picture}, picture, of_arm, 64).num_equal == 2


def test_attention_is_shown_before_and_after_training(html):
    for who in (1, 2):
        assert f"attention of reference {who} before training" in html
        assert f"attention of reference {who} after training" in html


def test_published_numbers_are_there_and_marked_as_not_comparable(html):
    assert "0.5284" in html
    assert html.count("not comparable") == 2
    table = html[html.index('id="scores"') : html.index('id="ablation"')]
    assert "MultiCrafter" not in table


def test_the_ablation_tells_its_orderings_with_their_reasons_beside_the_papers_table(html):
    section = html[html.index('id="ablation"') : html.index('id="published"')]
    texts = [re.sub("<.*?>", "", row) for row in re.findall("<tr><td>.*?</tr>", section)]
    assert [("comes out" in text, "finer than" in text) for text in texts] == [(True, False), (False, True)]
    assert "UNO (baseline)" in section
    assert "0.14<small>0.125 to 0.15" in section
    assert "<code>world.good_clips</code> 200" in section
    assert section.count("<svg") == 3


def test_page_tells_no_paths_and_is_the_same_every_time(outputs, html):
    assert str(outputs) not in html
    run(*[outputs / name for name in FOLDERS], outputs / "again", REPORT)
    assert (outputs / "again" / "index.html").read_text(encoding="utf-8") == html
    assert (outputs / "again" / "report.json").read_bytes() == (outputs / "report" / "report.json").read_bytes()
    assert len(html.encode()) < 5e6
    assert read_report(outputs / "report")["kept"] == len(ARMS)


def test_page_does_without_what_a_run_lacks(outputs, tmp_path):
    for name in FOLDERS:
        shutil.copytree(outputs / name, tmp_path / name)
    shutil.rmtree(tmp_path / "samples")
    write_shards([], tmp_path / "samples", 1)
    shutil.copy(outputs / "samples" / "report.json", tmp_path / "samples")
    shutil.rmtree(tmp_path / "models" / "train_multi" / "attention")
    for arm in ARMS:
        shutil.rmtree(tmp_path / "models" / arm / "live")
    shutil.rmtree(tmp_path / "clips")
    (tmp_path / "clips").mkdir()
    (tmp_path / "ablation" / "ablation.json").unlink()
    run(*[tmp_path / name for name in FOLDERS], tmp_path / "report", REPORT)
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "No sample came through" in html
    assert 'id="attention"' not in html
    assert 'id="training"' not in html
    assert 'id="ablation"' not in html
    assert html.count("not comparable") == 2
    assert html.count("no picture can be decoded") == 2


def test_every_reason_has_an_example_also_where_no_frame_was_stored(html):
    tiles = re.findall(r'<figure class="lost">(.*?)</figure>', html)
    examples = [(re.search(r'class="reason">([^<]*)<', tile)[1], "img" in tile) for tile in tiles]
    expected = {reason.replace("_", " ") for reasons in REJECTIONS.values() for reason in reasons}
    assert {reason for reason, _ in examples} == expected
    # Of the clips that were refused at once one can be decoded, and one is no video.
    assert dict(examples)["cut"]
    assert not dict(examples)["truncated file"]


def test_examples_are_one_per_reason_and_stage_before_any_reason_has_two():
    lost = [{"key": f"{i}", "reason": reason, "detail": ""} for i, reason in enumerate(["cut"] * 3 + ["short"])]
    facts = {"seen": 9, "kept": 5, "dropped": {"cut": 3, "short": 1}, "facts": {}, "versions": {}}
    accounts = [Account(stage=stage, rejections=lost, **facts) for stage in ("frames", "samples")]
    accounts[1].rejections[:] = [
        reason.model_copy(update={"key": f"s{reason.key}"}) for reason in accounts[1].rejections
    ]
    assert [(fate.stage, fate.reason) for fate in examples(accounts, 1).values()] == [
        ("frames", "cut"), ("frames", "short"), ("samples", "cut"), ("samples", "short")
    ]  # fmt: skip
    assert list(examples(accounts, 5)) == ["0", "1", "3", "s0", "s3"]
    assert examples(accounts, 5)["1"].alike == 3


def test_figures_lie_beside_the_page_as_files_and_as_tables(outputs):
    plots = {file.name for file in (outputs / "report" / "plots").iterdir()}
    assert plots == {
        "benchmark.png",
        "face_sim.svg",
        "funnel.svg",
        "experts_train_multi.svg",
        "attention_train_multi_0.png",
        *(f"similarity_{arm}.svg" for arm in ARMS),
        *(f"ablation_{metric}.svg" for metric in ("face_sim", "overall", "clip_t")),
        *(f"{arm}_reward_identity.svg" for arm in ARMS[1:]),
    }
    prompts = list(read_shards(outputs / "pairs" / "bench", PairPrompt))[:NUM_OVERVIEW]
    with Image.open(outputs / "report" / "plots" / "benchmark.png") as overview:
        columns, rows = ((side - OVERVIEW_GAP_PX) // (OVERVIEW_PX + OVERVIEW_GAP_PX) for side in overview.size)
    assert (columns, rows) == (max(len(prompt.names) for prompt in prompts) + len(ARMS), len(prompts))
    for file in (outputs / "report" / "plots").glob("*.svg"):
        assert "var(--" not in file.read_text(encoding="utf-8")
        assert not re.search("#0[1-9a-c]0[1-9a-c]0[1-9a-c]", file.read_text(encoding="utf-8"))
    experts = (outputs / "report" / "plots" / "experts_train_multi.svg").read_text(encoding="utf-8")
    for line in ("blocks.0: text", "blocks.0: picture", "blocks.0: references", "blocks.1"):
        assert f">{line}<" in experts
    series = {
        file.stem: file.read_text(encoding="utf-8").splitlines() for file in (outputs / "report" / "series").iterdir()
    }
    assert series["funnel"][:2] == ["stage,seen,kept", "frames,20,17"]
    assert series["face_sim"][1].startswith("train_single,0.05")
    assert f"{ARMS[2]},face_sim_heldout," in "\n".join(series["scores"])
    shares = [line.split(",") for line in series["similarity"][1:]]
    assert sum(float(share) for _, share, pairs in shares if pairs == "train_rl: same") == pytest.approx(1, abs=1e-3)


def test_other_systems_stand_in_the_table_and_those_of_other_prompts_or_judges_do_not(outputs, tmp_path, caplog):
    for name in FOLDERS:
        shutil.copytree(outputs / name, tmp_path / name)
    prompts = list(read_shards(tmp_path / "pairs" / "bench", PairPrompt))
    scores = [some_score(4, i) for i in range(3)]
    write_results_of(tmp_path / "results" / "theirs", prompts, scores, "score")
    older = [replace(prompt, prompt="another one") for prompt in prompts]
    write_results_of(tmp_path / "results" / "stale", older, scores, "score")
    write_results_of(tmp_path / "results" / "lenient", prompts, scores, "score", judge="another")
    means = {name: Interval(0.625, 0.5, 0.75) for name in ("subject_consistency", "preference")}
    (tmp_path / "results" / "objects").mkdir()
    content = as_metrics(ArmScores("objects", means, 350, "psrbench", 0, {"prompts": "published"}))
    (tmp_path / "results" / "objects" / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    run(*[tmp_path / name for name in FOLDERS], tmp_path / "report", REPORT)
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    table = html[html.index('id="scores"') : html.index('id="ablation"')]
    suite = table[table.index("<h3>psrbench</h3>") :]
    assert escape(PSR_POLICY) in suite
    assert re.search(r">SC<.*>Preference<.*objects<small>.*0\.625.*0\.625.*350", suite, re.DOTALL)
    assert "theirs<small>another system" in table
    assert "stale" not in html
    assert "lenient" not in html
    assert "stale is left out: not the same prompts as train_single; evaluate or score it again" in caplog.text
    assert "lenient is left out: not the same models.faces as train_single" in caplog.text
    assert (tmp_path / "report" / "plots" / "similarity_theirs.svg").is_file()


def test_unknown_arm_is_told_with_the_known_ones_and_leaves_nothing(outputs, tmp_path):
    params = REPORT.model_copy(update={"arms": ["train_single", "train_double"]})
    with pytest.raises(FileNotFoundError, match=r"'train_double'.*train_multi, train_rl, train_single"):
        run(*[outputs / name for name in FOLDERS], tmp_path / "report", params)
    assert not list(tmp_path.iterdir())


def test_pictures_that_do_not_fit_the_prompts_are_told(outputs, tmp_path):
    assert len(answers(outputs / "pairs" / "bench", outputs / "images" / "train_rl")) == 3
    write_shards([generated(pair_prompt("", "face-0", "face-1"), scene(0, 8, 8)[0])], tmp_path / "images", 1)
    with pytest.raises(ValueError, match="2 keys are in one only, the first is 'face-1.face-2'; run generate"):
        answers(outputs / "pairs" / "bench", tmp_path / "images")


def test_overlays_colour_people_apart_and_leave_the_rest_grey():
    picture, bodies, faces = scene(0, 60, 60)
    painted = mask_overlay(picture, bodies, faces).astype(int)
    outside = painted[~bodies.any(axis=0)]
    assert (np.ptp(outside, axis=1) <= 1).all()
    assert np.ptp(painted[faces[0]], axis=1).mean() > np.ptp(painted[bodies[0] & ~faces[0]], axis=1).mean() > 5
    heat = np.zeros((6, 6), np.float32)
    assert np.ptp(heat_overlay(picture, heat, 0), axis=2).max() <= 1
    heat[1, 4] = 1e-3
    lit = heat_overlay(picture, heat, 1).astype(int)
    assert np.ptp(lit, axis=2).argmax() % 60 > 30


def test_contact_sheets_show_images_of_any_shape_whole():
    tile = np.asarray(contact_sheet([[np.zeros((10, 20, 3), np.uint8)]], 40, 4))[4:44, 4:44]
    assert (tile[10:30] == 0).all()
    assert (tile[:9] == 255).all()
    assert (tile[31:] == 255).all()


def test_smoothing_keeps_constants_lines_and_ends():
    assert smoothed(np.full(30, 2.0)) == pytest.approx(np.full(30, 2.0))
    line = np.arange(64, dtype=float)
    assert smoothed(line) == pytest.approx(line)
    assert smoothed(np.array([3.0, 1.0])) == pytest.approx([3.0, 1.0])


def test_plots_follow_the_theme_inside_the_page_and_pictures_are_made_smaller():
    plot = curve_plot('a "loss" <b>', [0, 1, 2], [3.0, 2.0, 1.0])
    assert plot == curve_plot('a "loss" <b>', [0, 1, 2], [3.0, 2.0, 1.0])
    assert "var(--accent)" in plot.inline
    assert "<b>" not in plot.inline
    assert "<style" not in plot.inline
    large = scene(0, 500, 500)[0]
    assert data_uri(large, 300).startswith("data:image/jpeg")
    assert len(data_uri(large, 100)) < len(data_uri(large, 300))


def test_histograms_are_shares_and_plots_say_their_numbers():
    shares = dict(similarity_shares([0.51, 0.52, 0.9, -2.0]))
    assert shares[0.525] == 0.5
    assert shares[-0.475] == 0.25
    assert sum(shares.values()) == 1
    assert set(dict(similarity_shares([])).values()) == {0}
    assert "mean 0.600" in similarity_plot("arm", [0.5, 0.7], []).description
    arms = {"one": {"face_sim": Interval(0.5, 0.4, 0.6)}, "two": {}}
    assert "one 0.500" in interval_plot({"face_sim": "Face-Sim", "other": "Other"}, arms).description
