"""Builders of the tiny zoo, one module for each checkpoint; all learn from the puppet world alone."""
