"""How long to wait for somebody else, where a variable of the environment says it."""

from __future__ import annotations

import os

from compress.errors import ConfigError

_MOST = 1e6


def seconds_of(variable: str, default: float) -> float:
    """Seconds that a variable of the environment names.

    Raises:
        ConfigError: it is no number above 0.
    """
    said = os.environ.get(variable, str(default))
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _MOST:
        raise ConfigError(f"{variable} is {said!r}, seconds above 0 are wanted", hint=f"unset it, or {variable}=600")
    return seconds
