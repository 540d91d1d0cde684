"""The tiny zoo: checkpoints of the classes that production uses, at laptop size, and what builds them."""

import mcpipe  # noqa: F401  no reports: some modules import what sends them before they import mcpipe
