"""Rows of the embedded world: the benchmark, data of the single-subject model, and a counterpart."""

from pathlib import Path

from objects.rows import RowsParams
from objects.rows import run as write_rows


def run(rows: Path, params: RowsParams) -> None:
    """Write the rows of the branch of objects."""
    write_rows(rows, params)
