"""Foundations of every stage: parameters, records, shards, reports, progress."""
