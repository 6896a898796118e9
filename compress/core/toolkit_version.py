"""Which version of this library made something, and when."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from compress.core.environment import version_of

_PACKAGE = "smaller-convnets"
_GIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The library behind a report.

    Attributes:
        version: of the installed package; empty where it is run from a checkout that is not installed.
        commit: of the checkout, or what the package was installed from; empty where nobody wrote it down.
        date: when the report was made, UTC, as ``2026-11-27 10:55``.
    """

    version: str = ""
    commit: str = ""
    date: str = ""

    @property
    def text(self) -> str:
        """On one line: ``compress 0.1.0, commit 187f6a4c02de, 2026-11-27 10:55 UTC``."""
        named = " ".join(filter(None, ("compress", self.version)))
        return ", ".join(filter(None, (named, self.commit and f"commit {self.commit}", self.date and f"{self.date} UTC")))


def made_by() -> MadeBy:
    """This library, now."""
    return MadeBy(version_of(_PACKAGE) or "", _commit(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M"))


@cache
def code_digest() -> str:
    """A digest of this library's sources: another version computes something else, perhaps."""
    root, hashed = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


def _commit() -> str:
    """Of the checkout that holds this file, else of the address that the package was installed from."""
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        asked = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
        try:
            said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_GIT_SECONDS).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
        return said if said.isalnum() else ""
    try:
        told = metadata.distribution(_PACKAGE).read_text("direct_url.json") or "{}"
        commit = json.loads(told).get("vcs_info", {}).get("commit_id", "")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return ""
    return commit[:12] if isinstance(commit, str) and commit.isalnum() else ""
