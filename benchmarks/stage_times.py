"""What every stage of a `make repro` took, from the lines that the door of the stages writes.

    python -m benchmarks.stage_times FILE

The first line of the file says when the run began. Stages that DVC skipped or took from its cache ran nothing and have
no line; the time of no stage is DVC's own: hashing, the cache, starting processes.
"""

import sys
import time
from pathlib import Path

BEGAN = "began"
"""First word of the first line, before the moment in seconds since 1970."""


def table(text: str, now_s: float) -> str:
    """The profile as text: a line per stage that ran, then DVC's own time and the sum.

    Raises:
        ValueError: the text is no profile.
    """
    (word, began), *rows = [line.split("\t") for line in text.splitlines()] or [["", ""]]
    if word != BEGAN or any(len(row) != 5 for row in rows):
        raise ValueError(f"a profile begins with {BEGAN!r} and has five columns; `make repro` writes one")
    total, seconds = now_s - float(began), [float(row[2]) for row in rows]
    if not rows:
        return f"no stage ran: all were up to date or in the cache; {total:.0f} s of DVC"
    lines = [f"{'stage':<14}{'output':<28}{'seconds':>9}{'share':>7}{'cores':>7}{'peak MB':>9}"]
    for (name, out, _, busy, peak), wall in zip(rows, seconds, strict=True):
        cores = float(busy) / wall if wall else 0.0
        lines.append(f"{name:<14}{out:<28}{wall:>9.1f}{wall / total:>7.0%}{cores:>7.2f}{float(peak):>9.0f}")
    own = total - sum(seconds)
    lines.append(f"{'DVC itself':<42}{own:>9.1f}{own / total:>7.0%}")
    lines.append(f"{'together':<42}{total:>9.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8"), time.time()))
