"""The tiny zoo: checkpoints of the classes that production uses, at laptop size, and what builds them."""
