"""The JSON schema of a report, derived from its dataclasses, so that the two cannot part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.errors import ConfigError
from compress.report.model import SCHEMA, Report


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of :meth:`Report.to_json`; unknown entries are refused."""
    made = _adapter().json_schema(mode="serialization")
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["$id"] = SCHEMA
    made["title"] = "A report of compress"
    made["properties"]["schema"] = {"const": SCHEMA}
    for part in (made, *made["$defs"].values()):
        if "properties" in part:
            part["additionalProperties"] = False
            part["required"] = list(part["properties"])
    return made


def validate(data: Any) -> Report:
    """A report from JSON that may come from anywhere.

    Raises:
        ConfigError: it is no report, or one of another version; the message names the first entry that does not fit.
    """
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        seen = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
        raise ConfigError(f"not a report of this version: schema {str(seen)[:40]!r}, {SCHEMA!r} was wanted")
    try:
        return _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the report's {where or 'content'} does not fit its schema: {first['msg']}") from error
