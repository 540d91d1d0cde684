"""Training stage 3: reinforcement learning from rewards of generated images."""
