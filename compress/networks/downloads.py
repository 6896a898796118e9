"""One file from an address, whole or not at all; called only for what a user named."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from compress.core import aside, version_of
from compress.errors import CheckpointError, one_line

_SECONDS = 30.0
"""Without a byte in so long, a server is given up."""
_PART = 1 << 20


def cached_at(url: str) -> Path:
    """Where the file of an address is kept: below ``$XDG_CACHE_HOME/compress``, under the address's digest and its own name."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = "".join(c if c.isalnum() or c in "._-" else "_" for c in Path(unquote(urlsplit(url).path)).name)[-100:]
    return cache / "compress" / "networks" / hashlib.sha256(url.encode()).hexdigest()[:16] / (name.lstrip(".") or "weights")


def download(url: str, file: Path | None = None, *, digest: str = "") -> Path:
    """The file of an address; one that is there already is not fetched again.

    Args:
        url: http or https.
        file: where it goes, its folder is made; by default where such files are kept.
        digest: how its SHA-256 begins, where that is known.

    Raises:
        CheckpointError: it cannot be fetched, ends early, or is another file than was wanted; the hint says how to do without.
    """
    by_hand = f"where there is a connection, fetch {url}, and give the file itself"
    try:
        file = cached_at(url) if file is None else file
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with aside(file) as temporary:
                _fetch(url, temporary)
        found = _sha256(file) if digest else ""
    except (OSError, ValueError) as error:  # urllib's and http.client's are OSErrors; a malformed address is a ValueError
        raise CheckpointError(f"{url} cannot be fetched: {one_line(error)}", hint=by_hand) from error
    if not found.startswith(digest):
        raise CheckpointError(
            f"{file} is not what {url} should be: its SHA-256 begins with {found[: len(digest)]}, {digest} was wanted",
            hint=f"remove {file} and try again",
        )
    return file


def _fetch(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"compress/{version_of('smaller-convnets') or '0'}"})
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer, target.open("wb") as file:
        shutil.copyfileobj(answer, file, _PART)
        wanted = answer.headers.get("Content-Length")
        if wanted is not None and wanted.isdecimal() and file.tell() != int(wanted):
            raise OSError(f"it ends after {file.tell()} of {wanted} bytes")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
