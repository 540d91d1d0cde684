"""Checks of models, packages, memory and disk before anything runs."""
