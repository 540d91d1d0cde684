"""Preference optimisation on pairs of images that differ in their subjects: FocusDPO and its baselines."""
