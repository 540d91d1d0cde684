"""The verb ``mcpipe demo``: images of given people in the browser."""
