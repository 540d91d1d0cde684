"""Documents can be read in minutes, docstrings say what things are, and a class name has one meaning."""

import ast
from collections import Counter

from imports import module_file, project_modules, syntax_tree
from prose import ARCHAIC, faults, names_in, num_figures, paragraphs

SHARED_NAMES = {"Settings", "Training", "Params"}
"""Private to one module each by their use; every other public class name stands for one thing in the whole tree."""


def test_documents_docstrings_and_names_read_well():
    assert faults() == []


def test_the_checks_find_what_they_look_for():
    assert [len(text.split()) for _, text in paragraphs("a b\nc\n\n| x y |\n- d\n- e f\n```\ncode\n```\n")] == [3, 2, 3]
    assert ARCHAIC.match("Of the KL term.")
    assert ARCHAIC.match("What was found.")
    assert not ARCHAIC.match("Weight of the KL term.")
    assert num_figures("From `1` to 2.5, [3](4.md) and 1,000.") == 2
    tree = ast.parse("def one(told):\n    found = told.shown\n    told.shown = 1")
    assert [name for node in ast.walk(tree) for name, _ in names_in(node)] == ["one", "told", "found", "shown"]


def test_a_public_class_name_has_one_meaning():
    names = Counter(
        node.name
        for module in project_modules("mcpipe", "stages", "studies")
        for node in syntax_tree(module_file(module)).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, number in names.items() if number > 1} - SHARED_NAMES == set()
