"""ONNX files that compute what the network computes: writing, canonicalising, and the proof."""
