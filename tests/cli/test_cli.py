import json
import os
import re
import shlex
import shutil
import sys
from argparse import Namespace

import numpy as np
import pytest
from imports import ROOT
from PIL import Image
from processes import completed, output, type_into
from record_fixtures import generated, pair_prompt, pool_face
from shtab import SUPPORTED_SHELLS

from mcpipe.bench.psr.columns import SUITE as PSRBENCH
from mcpipe.bench.suites import PUBLIC
from mcpipe.bench.tables import METRICS, PEOPLE
from mcpipe.cli import __main__ as cli
from mcpipe.cli.__main__ import main
from mcpipe.cli.completion import command
from mcpipe.core.shards import write_shards
from mcpipe.report.images import contact_sheet


@pytest.fixture
def run(tmp_path):
    """What a small run leaves behind."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    write_shards([pool_face(key, grey) for key in "ab"], tmp_path / "pairs" / "faces", 9)
    prompt = pair_prompt("two people", "a", "b")
    write_shards([prompt], tmp_path / "pairs" / "bench", 9)
    for place, arm in enumerate(("train_rl", "train_single", "another")):
        scores = {f"{metric}{end}": 0.1 * place for metric in METRICS for end in ("", "_low", "_high")}
        folder = tmp_path / "results" / arm
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(
            json.dumps(scores | {"num_images": 1, "num_missing": 0, "footing": {"prompts": "a"}}), encoding="utf-8"
        )
        picture = np.full((16, 16, 3), 50 * (place + 1), np.uint8)
        write_shards([generated(prompt, picture)], tmp_path / "images" / arm, 9)
    return tmp_path


def test_table_lists_arms_in_the_order_of_training(run, capsys):
    assert main(["table", str(run / "results")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["train_single", "train_rl", "another"]


def test_results_of_objects_stand_beside_those_of_people_and_published_rows_below(run, capsys):
    values = dict.fromkeys(("clip_t", "dino_i", "clip_i", "hps", "overall", "detection_rate"), 0.5)
    flat = {f"{metric}{end}": value for metric, value in values.items() for end in ("", "_low", "_high")}
    scores = flat | {"num_images": 2, "num_missing": 0, "footing": {"prompts": "o"}, "suite": "objects"}
    for arm in ("train_single", "train_rl"):
        (run / "objects" / arm).mkdir(parents=True)
        (run / "objects" / arm / "metrics.json").write_text(json.dumps(scores), encoding="utf-8")
    assert main(["table", str(run / "objects"), "--people", str(run / "results")]) == 0
    lines = capsys.readouterr().out.splitlines()
    ours, published = (
        lines.index("both tracks; Overall is the plain mean of nine columns:"),
        lines.index("published, not comparable (MultiCrafter, table 1):"),
    )
    assert [line.split()[0] for line in lines[ours + 3 : ours + 5]] == ["train_single", "train_rl"]
    assert lines[-1].split() == ["MultiCrafter", *["0.2753", "0.5284", "0.8294", "0.8524", "0.2915"],
                                 *["0.3380", "0.7824", "0.8608", "0.2748", "0.5592"]]  # fmt: skip
    assert published > ours
    assert main(["table", str(run / "objects"), "--people", str(run / "nowhere")]) == 0
    assert "both tracks" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("footing", "reason"),
    [
        ({"prompts": "b"}, "not the same prompts as train_single"),
        ({"prompts": "a", "models.faces": "x"}, "not the same models.faces as train_single"),
        (None, "it is older than this version"),
    ],
)
def test_table_leaves_out_what_is_not_comparable_with_the_pipeline_and_says_why(run, capsys, footing, reason):
    file = run / "results" / "another" / "metrics.json"
    scores = json.loads(file.read_text(encoding="utf-8"))
    del scores["footing"]
    file.write_text(json.dumps(scores | ({"footing": footing} if footing else {})), encoding="utf-8")
    assert main(["table", str(run / "results")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["train_single", "train_rl"]
    assert [line for line in lines if "another" in line] == [lines[-1]]
    assert lines[-1].startswith(f"another is left out: {reason}")


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"clip_t": null}', b"\xff\xfe"])
def test_a_damaged_result_is_named_in_one_line(run, capsys, content):
    file = run / "results" / "another" / "metrics.json"
    scores = json.loads(file.read_text(encoding="utf-8"))
    if content == '{"clip_t": null}':
        content = json.dumps(scores | {"clip_t": None})
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["table", str(run / "results")]) == 1
    stderr = capsys.readouterr().err
    assert str(file) in stderr
    assert "again" in stderr
    assert len(stderr.splitlines()) == 1


def test_picture_shows_faces_then_arms(run, capsys):
    shutil.copytree(run / "results" / "another", run / "results" / "scored_elsewhere")
    assert main(["picture", str(run / "sheet.png"), "--data", str(run)]) == 0
    assert "train_single, train_rl, another" in capsys.readouterr().out
    sheet = np.asarray(Image.open(run / "sheet.png"))
    middle = sheet[sheet.shape[0] // 2, 6 + 72 :: 150, 0]
    assert middle.tolist() == [100, 100, 100, 50, 150]


@pytest.mark.parametrize(("name", "reason"), [("sheet.psd", "as a picture does"), ("results.png", "is a folder")])
def test_picture_refuses_what_it_cannot_write_before_it_reads_the_run(tmp_path, capsys, name, reason):
    (tmp_path / "results.png").mkdir()
    assert main(["picture", str(tmp_path / name), "--data", str(tmp_path / "gone")]) == 1
    assert reason in capsys.readouterr().err


def test_world_is_shown_on_one_sheet_that_follows_from_the_seed(tmp_path, capsys):
    sheets = []
    for name, seed in (("a.png", 4), ("b/a.png", 4), ("c.png", 5)):
        assert main(["world", "--preview", str(tmp_path / name), "--seed", str(seed)]) == 0
        sheets.append((tmp_path / name).read_bytes())
    assert "seed 4" in capsys.readouterr().out
    assert sheets[0] == sheets[1] != sheets[2]
    assert len(sheets[0]) < 350_000
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape[0] > 700
    assert sheet.shape[1] > 900
    assert (sheet != 255).any(axis=2).mean() > 0.5


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("sheet", [], "should end as a picture does"),
        ("sheet.psd", [], "should end as a picture does"),
        ("sheet.png", ["--seed", "-1"], "0 or more"),
        ("file.txt/sheet.png", [], "file.txt"),
        ("folder.png", [], "folder.png"),
    ],
)
def test_world_refuses_what_it_cannot_write_in_one_line(tmp_path, capsys, name, arguments, reason):
    (tmp_path / "file.txt").write_text("", encoding="utf-8")
    (tmp_path / "folder.png").mkdir()
    assert main(["world", "--preview", str(tmp_path / name), *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert reason in output.err
    assert len(output.err.strip().splitlines()) == 1


def test_nothing_to_show_is_said_in_one_line(tmp_path, capsys):
    assert main(["table", str(tmp_path)]) == 1
    assert "run `dvc repro` first" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], 8, 1)


def help_without_heavy_imports(*arguments):
    """What is printed by a process of its own."""
    code = (
        "import sys\nfrom mcpipe.cli.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'yaml', 'scipy'} & set(sys.modules)\n"
        "    sys.exit(f'imports {heavy}' if heavy or stop.code else 0)"
    )
    words = [sys.executable, "-c", code, *arguments, "--help"]
    return output(words, cwd=ROOT)


def test_help_lists_the_verbs_with_a_line_each_and_imports_nothing_heavy():
    help_text = help_without_heavy_imports()
    for verb in ("curate", "generate", "demo", "score", "doctor", "world", "table", "picture", "completion"):
        assert re.search(rf"\n    {verb}\s", help_text)


def test_help_of_score_names_the_suites_and_needs_no_torch():
    assert f"{{{','.join((PEOPLE, *PUBLIC, PSRBENCH))}}}" in help_without_heavy_imports("score")


@pytest.mark.parametrize("moment", ["parser", "say"])
def test_an_interrupt_is_one_line_whenever_it_comes(moment, monkeypatch, capsys):
    """While arguments are read, and while the answer is printed."""
    stopped, original = [], cli.say

    def interrupt(*arguments, **options):
        if stopped:
            return original(*arguments, **options)
        stopped.append(moment)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, moment, interrupt)
    assert main(["completion", "bash"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("arguments", [[], ["dance"], ["world"], ["table", "a", "b"], ["score"], ["completion", "ksh"]])
def test_a_wrong_command_line_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: mcpipe" in capsys.readouterr().err


def test_bash_completes_verbs_options_choices_and_folders(script, tmp_path):
    (tmp_path / "a folder" / "in side").mkdir(parents=True)
    (tmp_path / "a file.png").touch()
    for words, offered in (
        (["gen"], ["generate"]),
        (["generate", "--re"], ["--reference"]),
        (["generate", "--reference", r"a\ file.png", "--pro"], ["--prompt"]),
        (["completion", "zs"], ["zsh"]),
        (["table", "--no-such"], []),
        (["table", "-"], ["-h", "--help", "--people"]),
        (["score", "--suite", "mc"], ["mcpipe"]),
        (["score", "--name", "mc"], []),
        (["score", "--images", "pictures", "--su"], ["--suite"]),
        (["curate", "a"], ["a folder"]),
        (["curate", r"a\ fo"], ["a folder"]),
        (["curate", r"a\ folder/"], ["a folder/in side"]),
        (["curate", "'a fo"], ["a folder"]),
        (["generate", "--out", "a"], []),  # left to readline
    ):
        line = f"COMP_WORDS=({shlex.join(['mcpipe', *words])}); COMP_CWORD={len(words)}; _shtab_mcpipe"
        show = 'for word in "${COMPREPLY[@]}"; do echo "$word"; done'
        ran = completed(["bash", "-c", f"{script}\n{line}\n{show}"], cwd=tmp_path)
        assert (ran.returncode, ran.stdout.splitlines(), ran.stderr) == (0, offered, ""), words


def test_a_typed_file_name_with_spaces_is_completed_by_an_interactive_bash(script, tmp_path):
    (tmp_path / "my face.png").touch()
    (tmp_path / "completion.sh").write_text(script, encoding="utf-8")
    given = "mcpipe() { printf '<%s>' \"$@\" > given; }"
    typed = f". ./completion.sh; {given}\nmcpipe generate --reference my\\ f\t\nexit\n"
    type_into(["bash", "--norc", "-i"], typed, tmp_path)
    assert (tmp_path / "given").read_text(encoding="utf-8") == "<generate><--reference><my face.png>"


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_verbs_options_choices_files_and_folders(tmp_path):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file.png").touch()
    (tmp_path / "completion.fish").write_text(command(Namespace(shell="fish")), encoding="utf-8")
    for typed, offered in (
        ("gen", ["generate"]),
        ("generate --re", ["--reference"]),
        ("completion zs", ["zsh"]),
        ("score --suite mc", ["mcpipe"]),
        ("curate a", ["a folder/"]),
        ("generate --reference a", ["a file.png", "a folder/"]),
    ):
        line = f"source completion.fish; complete -C 'mcpipe {typed}'"
        ran = completed(["fish", "--no-config", "-c", line], cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)})
        assert [answer.partition("\t")[0] for answer in ran.stdout.splitlines()] == offered, ran.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize(
    ("typed", "given"),
    [
        ("gener\t", "<generate>"),
        ("generate --refer\tmy\t", "<generate><--reference><my face.png>"),
        ("completion fi\t", "<completion><fish>"),
    ],
)
def test_an_interactive_zsh_completes_what_is_typed(typed, given, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my face.png").touch()
    (tmp_path / "completion.zsh").write_text(command(Namespace(shell="zsh")), encoding="utf-8")
    begin = 'autoload -Uz compinit && compinit -u && eval "$(cat completion.zsh)"'
    mcpipe = "mcpipe() { printf '<%s>' \"$@\" > given; }"
    type_into(["zsh", "-f", "-i"], f"{begin}; {mcpipe}\nmcpipe {typed}\nexit\n", tmp_path)
    assert (tmp_path / "given").read_text(encoding="utf-8") == given


def test_every_shell_gets_its_script_unchanged_and_without_heavy_imports(capsys):
    for shell in SUPPORTED_SHELLS:
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out.rstrip("\n") == command(Namespace(shell=shell)).rstrip("\n")
    code = (
        "import sys\nfrom mcpipe.cli.__main__ import main\nmain(['completion', 'bash'])\n"
        "sys.exit(str({'torch', 'numpy', 'PIL', 'yaml'} & set(sys.modules) or 'nothing'))"
    )
    ran = completed([sys.executable, "-c", code], cwd=ROOT)
    assert ran.stderr == "nothing\n"


@pytest.fixture(scope="module")
def script():
    """The script that a person would evaluate in bash."""
    return command(Namespace(shell="bash"))
