"""The paper's table 1: five columns of people, four of objects, and the plain mean of all nine."""

from collections.abc import Sequence
from dataclasses import dataclass

from mcpipe.bench import object_columns
from mcpipe.bench.tables import AVERAGED, LABELS, PEOPLE, ArmScores

NAME_WIDTH, WIDTH = 14, 10


@dataclass(frozen=True)
class BothTracks:
    """An arm's means in both tracks, in the order of the paper's columns."""

    name: str
    people: tuple[float, ...]
    objects: tuple[float, ...]

    @property
    def overall(self) -> float:
        """The plain mean of the nine columns."""
        return sum((*self.people, *self.objects)) / (len(self.people) + len(self.objects))


def both_tracks(people: Sequence[ArmScores], objects: Sequence[ArmScores]) -> list[BothTracks]:
    """The arms that have results in both tracks, in the order of the people's."""
    of_objects = {arm.name: arm for arm in objects if arm.suite == object_columns.SUITE}
    return [
        BothTracks(
            arm.name,
            tuple(arm.means[metric].value for metric in AVERAGED),
            tuple(of_objects[arm.name].means[metric].value for metric in object_columns.AVERAGED),
        )
        for arm in people
        if arm.suite == PEOPLE and arm.name in of_objects
    ]


def both_lines(title: str, rows: Sequence[BothTracks]) -> list[str]:
    """A table of nine columns and their mean, as lines; ``title`` stands in front of the columns."""
    columns = [f"{LABELS[metric]}" for metric in (*AVERAGED, *object_columns.AVERAGED)]
    width = max(NAME_WIDTH, *(len(row.name) + 2 for row in rows))
    head = "people".rjust(WIDTH * len(AVERAGED)) + "objects".rjust(WIDTH * len(object_columns.AVERAGED))
    lines = ["", title, " " * width + head, " " * width + "".join(f"{name:>{WIDTH}}" for name in [*columns, "Overall"])]
    for row in rows:
        cells = (*row.people, *row.objects, row.overall)
        lines.append(f"{row.name:<{width}}" + "".join(f"{cell:>{WIDTH}.4f}" for cell in cells))
    return lines
