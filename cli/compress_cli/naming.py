"""Names that can be typed: what a shell completes, and what is said of those that name nothing."""

from __future__ import annotations

from collections.abc import Iterable

from compress.core import did_you_mean
from compress.errors import ConfigError


def method_names(incomplete: str) -> list[str]:
    """The methods that begin with what a shell is given so far."""
    from compress_cli.citations import OF_METHOD

    return [name for name in OF_METHOD if name.startswith(incomplete)]


def unknown_method(name: str, known: Iterable[str]) -> ConfigError:
    """The error about a method that is not there."""
    known = list(known)
    return ConfigError(f"no method is called {name!r}", hint=did_you_mean(name, known, f"one of {', '.join(known)}"))
