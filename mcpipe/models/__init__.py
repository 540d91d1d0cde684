"""Frozen third-party models behind small protocols; the only package that imports vendors' libraries."""
