"""A page of the documentation that a benchmark writes a part of."""

from __future__ import annotations

from pathlib import Path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Puts a text between a page's two marks, instead of what stands there.

    Raises:
        ValueError: the page lacks a mark.
    """
    held = page.read_text()
    first, last = held.index(begin) + len(begin), held.index(end)
    page.write_text(f"{held[:first]}\n{text}\n{held[last:]}")
