"""Typed records: one frozen dataclass per boundary between stages."""
