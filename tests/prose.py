"""How documents and docstrings read: run by ``make lint`` and by the tests; prints every place to mend."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST_PARAGRAPH, LONGEST_README = 80, 1100
"""In words."""
CODE = ("mcpipe", "stages", "studies", "zoo")
ARCHAIC = re.compile(r"(Of |Is told|Are told|Told |Tells? (not )?(who|what|whether|of)\b|What (is|was) (told|found)\b)")
"""Beginnings of docstrings that are neither a noun phrase with its article nor a verb phrase."""


def documents() -> list[Path]:
    """README, CONTRIBUTING and everything below docs."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and list items of a Markdown text, with the line where each begins; no tables, code and headings."""
    lines: list[str] = []
    start, in_code = 1, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.lstrip().startswith("```")
        apart = fence or in_code or not line.strip() or line.startswith(("|", "#"))
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
        for start, text in paragraphs(file.read_text(encoding="utf-8")):
            if (words := len(text.split())) > LONGEST_PARAGRAPH:
                yield f"{file.relative_to(ROOT)}:{start}: a paragraph of {words} words"
    words = len((ROOT / "README.md").read_text(encoding="utf-8").split())
    if words > LONGEST_README:
        yield f"README.md: {words} words"


def odd_docstrings() -> Iterator[str]:
    """Docstrings, also those of fields, that a reader stumbles over."""
    for file in (file for folder in CODE for file in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            value = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
            if isinstance(value, str) and ARCHAIC.match(value.strip()):
                yield f"{file.relative_to(ROOT)}:{node.lineno}: {value.strip().splitlines()[0]!r}"


if __name__ == "__main__":
    faults = [*long_paragraphs(), *odd_docstrings()]
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.exit(1 if faults else 0)
