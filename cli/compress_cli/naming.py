"""Names that can be typed: what a shell completes, and what is said of those that name nothing."""

from __future__ import annotations

from collections.abc import Iterable

from compress.core import did_you_mean
from compress.errors import ConfigError


def method_names() -> list[str]:
    """The methods, of which a shell is offered those that begin with what is typed."""
    from compress_cli.citations import OF_METHOD

    return list(OF_METHOD)


def unknown_method(name: str, known: Iterable[str]) -> ConfigError:
    """The error about a method that is not there."""
    known = list(known)
    return ConfigError(f"no method is called {name!r}", hint=did_you_mean(name, known, f"one of {', '.join(known)}"))
