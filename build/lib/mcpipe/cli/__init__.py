"""The verbs of the command ``mcpipe``."""
