"""The puppet world: seeded images and clips of people whose every label is known."""
