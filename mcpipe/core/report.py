"""The report of a stage: kept and dropped items, reasons, and versions of packages.

Nothing in it depends on the clock or the machine, because it is part of the stage's output.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from mcpipe.core.records import JSON

logger = logging.getLogger(__name__)


class Report:
    """Counts of kept and dropped items; every dropped one is listed with its reason."""

    def __init__(self, stage: str, packages: tuple[str, ...] = ()) -> None:
        self.stage = stage
        self.packages = packages
        self.kept: list[str] = []
        self.rejections: list[dict[str, JSON]] = []
        self.facts: dict[str, JSON] = {}
        """Further facts about the stage's result."""

    def keep(self, key: str) -> None:
        """Count an item that goes on."""
        self.kept.append(key)

    def drop(self, key: str, reason: str, detail: str = "", scores: Mapping[str, JSON] | None = None) -> None:
        """Count an item that ends here; ``reason`` is a name to count by, the rest says more of this one."""
        logger.info("%s: dropped %s: %s %s", self.stage, key, reason, detail)
        rejection: dict[str, JSON] = {"key": key, "reason": reason, "detail": detail}
        if scores:
            rejection["scores"] = dict(scores)
        self.rejections.append(rejection)

    def summary(self) -> dict[str, JSON]:
        """The account as JSON: counts first, then every rejection in the order of keys."""
        reasons = Counter(str(rejection["reason"]) for rejection in self.rejections)
        return {
            "stage": self.stage,
            "seen": len(self.kept) + len(self.rejections),
            "kept": len(self.kept),
            "dropped": {reason: reasons[reason] for reason in sorted(reasons)},
            "rejections": [dict(r) for r in sorted(self.rejections, key=lambda r: (str(r["key"]), str(r["reason"])))],
            "facts": self.facts,
            "versions": {package: version(package) for package in ("mcpipe", *self.packages)},
        }

    def write(self, folder: Path) -> None:
        """Write ``report.json`` into a stage's output."""
        summary = self.summary()
        logger.info("%s: kept %s of %s, dropped %s", self.stage, summary["kept"], summary["seen"], summary["dropped"])
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        # Names of files may hold bytes that are no text; JSON has an escape for them.
        (folder / "report.json").write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")


def read_report(folder: Path) -> dict[str, JSON]:
    """The account that a stage left in its output.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is damaged.

    """
    account = read_mapping(folder / "report.json")
    if "stage" not in account:
        raise ValueError(f"{folder / 'report.json'} is damaged: it names no stage; run again what writes it")
    return account


def read_mapping(file: Path) -> dict[str, JSON]:
    """The content of a JSON file that a stage wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.

    """
    if not file.is_file():
        raise FileNotFoundError(f"no {file}; has the stage that writes it run?")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}; run again what writes it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: it is no mapping; run again what writes it")  # noqa: TRY004  not a type
    return content
