"""The generator and what we add to it: reference tokens, attention maps, experts, sampling."""
