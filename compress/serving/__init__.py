"""Inference servers that speak the v2 protocol: asking them, replacing a model under traffic, measuring what they sustain."""
