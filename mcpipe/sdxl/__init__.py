"""SDXL with an IP-Adapter: the second backbone of preference training."""
