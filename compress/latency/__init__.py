"""Latency that can be trusted: interleaved paired rounds, an A/A control, and three verdicts."""
