"""Pictures of the masks by noise level."""

from pathlib import Path

from mcpipe.steps.focus_masks import MasksParams, write_masks


def run(  # noqa: PLR0913  one argument per path
    dip: Path, encoded: Path, start: Path, generator: Path, masks: Path, params: MasksParams
) -> None:
    """Write the sheet of masks and mean A_focus by noise level."""
    write_masks(dip, encoded, start, generator, masks, params)
