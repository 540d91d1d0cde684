"""Training: the loop, its batches, and the three stages that spend steps in it."""
