"""Sessions that run a network: torch itself, and ONNX Runtime with each of its execution providers."""
