"""Stage 3: assignment of the people of both frames."""

from pathlib import Path

from mcpipe.curate.identity import IdentityParams
from mcpipe.steps.identity import IdentityWork, write_identity


def run(frames: Path, subjects: Path, faces: Path, identity: Path, params: IdentityParams) -> None:
    """Write faces, embeddings and the assignment of every clip whose people are verified."""
    write_identity(IdentityWork(faces, params), frames, subjects, identity)
