"""Reader of the scores that ``evaluate`` and ``mcpipe score`` write to a folder of results."""

from pathlib import Path

from mcpipe.bench.tables import ArmScores, from_metrics
from mcpipe.core.report import read_mapping


def read_scores(folder: Path) -> ArmScores:
    """The scores of an arm or of another system.

    Raises:
        FileNotFoundError: the folder has no scores.
        ValueError: the scores are damaged or older than this version.
    """
    file = folder / "metrics.json"
    metrics = read_mapping(file)
    try:
        return from_metrics(folder.name, metrics)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
