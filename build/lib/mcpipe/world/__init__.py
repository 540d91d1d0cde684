"""The puppet world: seeded pictures and clips of people whose every label is known."""
