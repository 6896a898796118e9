"""Modules for nodes, one family of operators a file."""
