"""Cutting a network by its plan, simulating the cut, and the guard that compares."""
