"""No test can wait for ever: for a process, a thread or an answer that never comes."""

import ast

from imports import ROOT, syntax_tree
from processes import PATIENCE_S

RUNS = {"run", "call", "check_call", "check_output"}
"""Functions of `subprocess` that wait for the end of a process."""
PIDS = {"wait", "waitpid", "waitid", "wait3", "wait4"}
"""Functions of `os` that do."""
WAITS = {"join", "wait", "get", "result", "communicate", "recv", "acquire"}
"""Methods that wait for a process, a thread or what these send when they get no argument."""
FILES = [file for file in sorted((ROOT / "tests").rglob("*.py")) if file.name != "processes.py"]


def endless(tree):
    """Calls that may wait for ever: `processes` has the same with a limit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            waits = {"subprocess": node.func.attr in RUNS, "os": node.func.attr in PIDS}.get(
                owner, node.func.attr in WAITS and not node.args
            )
            if waits and not any(word.arg == "timeout" for word in node.keywords):
                yield node


def test_every_wait_of_a_test_has_an_end():
    faults = [f"{file.relative_to(ROOT)}:{call.lineno}" for file in FILES for call in endless(syntax_tree(file))]
    assert len(FILES) > 50
    assert faults == [], "wait by tests/processes.py, or with a time"


def test_the_check_finds_what_it_looks_for():
    good = (
        "subprocess.run(x, timeout=9); p.join(9); p.wait(timeout=9); {}.get(x); ', '.join(x); run(x); q.get(timeout=9)"
    )
    bad = "subprocess.run(x); subprocess.call(x); os.waitpid(p, 0); p.join(); p.wait(); p.communicate(); q.get()"
    assert list(endless(ast.parse(good))) == []
    assert len(list(endless(ast.parse(bad)))) == bad.count(";") + 1


def test_a_test_that_takes_too_long_fails_or_ends_the_process_that_runs_it(pytestconfig):
    """Commands that wait for processes give up first, then the test, then its process."""
    assert PATIENCE_S < float(pytestconfig.getini("timeout")) < float(pytestconfig.getini("faulthandler_timeout"))
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
