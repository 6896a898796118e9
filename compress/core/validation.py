"""Values from a user as a dataclass: every field by its type, what is wrong in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from compress.core.suggestions import did_you_mean
from compress.errors import ConfigError

T = TypeVar("T")


def validated(kind: type[T], values: Mapping[str, Any], *, prefix: str = "", hint: str = "") -> T:
    """The dataclass with these values.

    Args:
        kind: a dataclass; its annotations say what each field takes.
        values: field -> value.
        prefix: before a field's name in the message.
        hint: of the error.

    Raises:
        ConfigError: a value does not fit; the first that does not is named.
    """
    try:
        found: T = _adapter(kind).validate_python(values)  # type: ignore[arg-type]  # a class is hashable
        return found
    except ValidationError as error:
        first = error.errors()[0]
        where = prefix + ".".join(str(p) for p in first["loc"])
        cause = first.get("ctx", {}).get("error")
        text = f"setting {where or 'job'}: {cause or first['msg']} (got {first['input']!r:.200})"
        raise ConfigError(text, hint=_meant(first) or hint) from error


def _meant(error: Any) -> str:
    """The word that was probably meant, where a field takes some words only."""
    words = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", ""))) if error["type"] == "literal_error" else []
    return did_you_mean(str(error["input"]), words)


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Built once a class: a job is made, and made again with other values, many times a run."""
    return TypeAdapter(kind)
