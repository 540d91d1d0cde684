"""Equations: losses, samplers, rewards and matching as pure functions. Tensors in, tensors out."""
