"""Bi-CNN-Pruning: filters above, input channels below."""
