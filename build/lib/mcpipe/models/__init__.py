"""Frozen third-party models behind small protocols; the only room that names vendors."""
