"""The report page: complete, self-contained, safe, the same every time."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from bench_fixtures import ARMS, FOLDERS, HOSTILE, REJECTIONS, REPORT, scene, write_outputs

from mcpipe.bench.pictures import curve_plot, data_uri, heat_overlay, mask_overlay, smoothed
from mcpipe.records import Record
from mcpipe.report import read_report
from mcpipe.shards import write_shards
from stages.s12_evaluate import answers
from stages.s13_report import run

VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    paths = write_outputs(root)
    run(*paths, root / "report", REPORT)
    return root


@pytest.fixture(scope="module")
def html(outputs):
    return (outputs / "report" / "index.html").read_text()


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
    for section in ("funnel", "samples", "training", "attention", "pictures", "scores", "published", "provenance"):
        assert f'id="{section}"' in html


def test_attention_is_shown_before_and_after_training(html):
    for who in (1, 2):
        assert f"attention of reference {who} before training" in html
        assert f"attention of reference {who} after training" in html


def test_published_numbers_are_there_and_marked_as_not_comparable(html):
    assert "0.5284" in html
    assert html.count("not comparable") == 2
    table = html[html.index('id="scores"') : html.index('id="published"')]
    assert "MultiCrafter" not in table


def test_page_tells_no_paths_and_is_the_same_every_time(outputs, html):
    assert str(outputs) not in html
    run(*[outputs / name for name in FOLDERS], outputs / "again", REPORT)
    assert (outputs / "again" / "index.html").read_text() == html
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
    run(*[tmp_path / name for name in FOLDERS], tmp_path / "report", REPORT)
    html = (tmp_path / "report" / "index.html").read_text()
    assert "No sample came through" in html
    assert 'id="attention"' not in html
    assert 'id="training"' not in html


def test_unknown_arm_is_told_with_the_known_ones_and_leaves_nothing(outputs, tmp_path):
    params = REPORT.model_copy(update={"arms": ["train_single", "train_double"]})
    with pytest.raises(FileNotFoundError, match=r"'train_double'.*train_multi, train_rl, train_single"):
        run(*[outputs / name for name in FOLDERS], tmp_path / "report", params)
    assert not list(tmp_path.iterdir())


def test_pictures_that_do_not_fit_the_prompts_are_told(outputs, tmp_path):
    assert len(answers(outputs / "pairs" / "bench", outputs / "images" / "train_rl")) == 3
    write_shards([Record("face-0+face-1", {}, {"image": scene(0, 8, 8)[0]})], tmp_path / "images", 1)
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


def test_smoothing_keeps_constants_lines_and_ends():
    assert smoothed(np.full(30, 2.0)) == pytest.approx(np.full(30, 2.0))
    line = np.arange(64, dtype=float)
    assert smoothed(line) == pytest.approx(line)
    assert smoothed(np.array([3.0, 1.0])) == pytest.approx([3.0, 1.0])


def test_plots_follow_the_theme_and_pictures_are_made_smaller():
    plot = curve_plot('a "loss" <b>', [0, 1, 2], [3.0, 2.0, 1.0])
    assert plot == curve_plot('a "loss" <b>', [0, 1, 2], [3.0, 2.0, 1.0])
    assert "var(--accent)" in plot
    assert "<b>" not in plot
    assert "<style" not in plot
    large = scene(0, 500, 500)[0]
    assert data_uri(large, 300).startswith("data:image/jpeg")
    assert len(data_uri(large, 100)) < len(data_uri(large, 300))
