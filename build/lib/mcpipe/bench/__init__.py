"""The benchmark: pairs of faces, metrics with intervals, tables and the report page."""
