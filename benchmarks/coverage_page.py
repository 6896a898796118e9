"""docs/coverage.md from results/coverage.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_page(rows: dict[str, Any], path: Path) -> None:
    path.write_text("")
