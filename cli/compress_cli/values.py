"""What the values of options can be at all, whichever command they belong to; asked before a command's body runs.

What depends on other options, files or the network is asked where those are known; what is certainly wrong ends here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import ConfigError

_MOST = 1e12
_DAY = 86_400.0
_RANGES: Mapping[str, tuple[float, float, str]] = {
    "seed": (0, 2**63 - 1, "0 or more, below 2^63"),
    "score_threads": (1, 1024, "between 1 and 1,024"),
    "threads": (0, 4096, "at most 4,096"),
    "batch": (1, 1_000_000, "between 1 and 1,000,000"),
    "epochs": (0, 100_000, "between 0 and 100,000"),
    "lr": (0, 1e6, "above 0 and at most a million"),
    "seconds": (1e-9, _DAY, "above 0 and at most a day"),
    "latency_seconds": (0, _DAY, "between 0 and a day"),
    "timeout": (1e-9, _DAY, "above 0 and at most a day"),
    "points": (2, 1_000_000, "2 or more"),
    "max_int8_drop": (0, _MOST, "0 or more"),
    "calibration_images": (1, 1e9, "1 or more"),
    "opset": (7, 99, "an operator set of ONNX, 18 or newer"),
    "tolerance": (0, 1e6, "0 or more"),
    "networks": (6, 1_000_000, "6 or more"),
    "delay": (0, 1e9, "between 0 and 1,000 seconds"),
    "max_batch": (0, 1_000_000, "between 0 and 1,000,000"),
    "instances": (1, 4096, "between 1 and 4,096"),
    "keep_versions": (1, 1e9, "1 or more"),
    "connections": (1, 4096, "between 1 and 4,096"),
    "rounds": (1, 1e6, "1 or more"),
    "requests": (1, 1e9, "1 or more"),
    "confirm": (1, 1e9, "1 or more"),
}
"""By name: least, most, and in words. A number whose option is not listed is from 0 to a million millions."""

_LABELS = ("sorted", "index-prefix", "classes", "masks", "boxes", "images", "values", "none")
"""Words of ``--labels``; anything else is a file."""


def check(options: Mapping[str, Any]) -> None:
    """Refuses what no command could use.

    Args:
        options: as the framework parsed them, by the names of a command's parameters.

    Raises:
        ConfigError: a number out of its range, or no number at all; a word that names nothing.
    """
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(option, name, value)
        if name == "labels" and value not in _LABELS and not Path(value or ".").is_file():
            raise ConfigError(f"{option} {value!r} is no file", hint=f"--labels {', '.join(_LABELS)}, or a file")
        if name == "runtime":
            names = [part.strip() for text in ([value] if isinstance(value, str) else value or []) for part in text.split(",")]
            if not all(names):
                raise ConfigError(f"{option} is empty", hint="leave it out for cpu, or name one: see `compress doctor`")
        if name == "size" and value is not None and not value.strip():
            raise ConfigError(f"{option} is empty", hint="--size 224, or leave it out")
        if name == "weights" and value is not None and not value.strip():
            raise ConfigError(f"{option} is empty", hint="--weights plain, ema or the name of an entry")
        if name == "base" and value is not None and not value.is_file():
            raise ConfigError(f"{option} {value} is no file", hint="give the .onnx file of the base")


def _number(option: str, name: str, value: float) -> None:
    least, most, said = _RANGES.get(name, (-_MOST, _MOST, "a number up to 10^12"))
    if not math.isfinite(value) or value > most or (name in _RANGES and value < least):
        raise ConfigError(f"{option} is {value:g}, but must be {said}", hint=f"leave {option} at its default")
