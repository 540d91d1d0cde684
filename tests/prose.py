"""How documents, docstrings and names read: run by ``make lint`` and by the tests; prints every place to mend."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_PARAGRAPH, LONGEST_README = 80, 950
"""In words."""
MOST_FIGURES = 3
"""Numbers in a sentence of a document; more belong into a table."""
CODE = ("mcpipe", "stages", "studies", "zoo", "benchmarks", "focusdpo", "objects", "psr")
VAGUE = frozenset({"told", "found", "one", "shown", "standing", "judges"})
"""Names of variables, parameters, attributes, functions and modules that say nothing about their content."""
ARCHAIC = re.compile(
    r"Of |(Is|Are|Was|Were) (told|found|shown|asked|given|known)\b|Told |Tells? (not )?(who|what|whether|of|how)\b"
    r"|What (is|are|was|were) (told|found|shown|seen|asked|wanted|known|left|true|there)\b"
    r"|(So (many|much|few)|As is|Likewise|Asked|Wanted|Whoever|Whatever)\b"
)
"""Beginnings of docstrings that are neither a noun phrase with its article nor a verb phrase."""
RIDDLE = re.compile(r"\b(is|are|was|were) told\b|\btells? (not )?(who|what|whether)\b|\btold (off|apart)\b|\bheeded\b")
"""Archaic forms anywhere in a docstring."""
VAGUE_WORD = re.compile(rf"\b_*({'|'.join(sorted(VAGUE))})_*\b", re.IGNORECASE)
DOCSTRING = re.compile(r'^[ ]*"""(.*?)"""', re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,/-])[+-]?\d+(?:[.,]\d+)*")
SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")


def documents() -> list[Path]:
    """README, CONTRIBUTING and everything below docs."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_files(*folders: str) -> list[Path]:
    """All Python files below some folders."""
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


@cache
def text_of(file: Path) -> str:
    """The content of a file."""
    return file.read_text(encoding="utf-8")


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and list items of a Markdown text, with the line where each begins; no tables, code and headings."""
    lines: list[str] = []
    start, in_code = 1, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        indented = line.startswith("    ") and not lines
        apart = fence or in_code or indented or not line.strip() or line.startswith(("|", "#"))
        if lines and (apart or re.match(r"\s*([-*]|\d+\.)\s", line)):
            yield start, " ".join(lines)
            lines = []
        if fence:
            in_code = not in_code
        elif not apart:
            start = number if not lines else start
            lines.append(line.strip())


def long_paragraphs() -> Iterator[str]:
    """Paragraphs of documents with too many words, and a README that is too long."""
    for file in documents():
        for start, text in paragraphs(text_of(file)):
            if (words := len(text.split())) > LONGEST_PARAGRAPH:
                yield f"{file.relative_to(ROOT)}:{start}: a paragraph of {words} words"
    words = len(text_of(ROOT / "README.md").split())
    if words > LONGEST_README:
        yield f"README.md: {words} words"


def num_figures(sentence: str) -> int:
    """Numbers in a sentence, outside of code, links and list marks."""
    return len(NUMBER.findall(re.sub(r"`[^`]*`|\[[^]]*\]\([^)]*\)|^\s*\d+\.\s", "", sentence)))


def crowded_sentences() -> Iterator[str]:
    """Sentences of documents with too many numbers."""
    for file in documents():
        for start, text in paragraphs(text_of(file)):
            for sentence in SENTENCE_END.split(text):
                if (number := num_figures(sentence)) > MOST_FIGURES:
                    yield f"{file.relative_to(ROOT)}:{start}: {number} figures in {sentence!r}"


def odd_docstrings() -> Iterator[str]:
    """Docstrings, also those of fields, in archaic English; they are the strings that begin a line."""
    for file in python_files(*CODE, "tests"):
        text = text_of(file)
        for docstring in DOCSTRING.finditer(text):
            if ARCHAIC.match(docstring[1].strip()) or RIDDLE.search(docstring[1]):
                line = text.count("\n", 0, docstring.start(1)) + 1
                yield f"{file.relative_to(ROOT)}:{line}: {docstring[1].strip().splitlines()[0]!r}"


def names_in(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a node of a syntax tree defines, with their lines."""
    match node:
        case ast.Name(id=name, ctx=ast.Store(), lineno=line):
            yield name, line
        case ast.Attribute(attr=name, ctx=ast.Store(), lineno=line) | ast.arg(arg=name, lineno=line):
            yield name, line
        case ast.FunctionDef(name=name, lineno=line) | ast.ClassDef(name=name, lineno=line):
            yield name, line
        case ast.alias(asname=str(name), lineno=line):
            yield name, line
        case _:
            pass


def vague_names() -> Iterator[str]:
    """Names of `VAGUE` that code or tests define, as files, too."""
    for file in python_files(*CODE, "tests"):
        place = file.relative_to(ROOT)
        if file.stem in VAGUE:
            yield f"{place}: a module called {file.stem}"
        for node in ast.walk(ast.parse(text_of(file))) if VAGUE_WORD.search(text_of(file)) else ():
            for name, line in names_in(node):
                if name.strip("_").lower() in VAGUE:
                    yield f"{place}:{line}: the name {name} says nothing about its content"


def faults() -> list[str]:
    """Every place to mend."""
    return [*long_paragraphs(), *crowded_sentences(), *odd_docstrings(), *vague_names()]


if __name__ == "__main__":
    places = faults()
    sys.stdout.write("".join(f"{place}\n" for place in places))
    sys.exit(1 if places else 0)
