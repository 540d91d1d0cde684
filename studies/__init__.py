"""Experiments that train several arms through DVC and compare them."""
