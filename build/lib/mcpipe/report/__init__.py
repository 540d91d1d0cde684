"""The report page: figures, galleries, and numbers that others published."""
