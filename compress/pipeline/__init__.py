"""Whole runs: prune, pick, inspect, compare."""
