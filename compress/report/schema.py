"""The JSON schema of a report, derived from its dataclasses, so that the two cannot part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from compress.core import TOP1
from compress.errors import ConfigError
from compress.report.model import SCHEMA, Report

FIRST = "compress-report-1"
_RENAMED = {"top1": "value"}


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


def upgraded(data: Any) -> Any:
    """A report of the first version as one of this; anything else as it is.

    The first version knew one task: ``accuracy`` held rows with ``top1``, and a certificate counted disagreements.
    """
    if not isinstance(data, Mapping) or data.get("schema") != FIRST or "scores" in data:
        return data
    known = dict(data) | {"schema": SCHEMA, "task": "classification", "figure": asdict(TOP1)}
    rows = known.pop("accuracy", None)
    if isinstance(rows, list | tuple):
        known["scores"] = [{_RENAMED.get(k, k): v for k, v in row.items()} if isinstance(row, Mapping) else row for row in rows]
    if isinstance(known.get("certificate"), Mapping):
        known["certificate"] = {**known["certificate"], "figure": asdict(TOP1), "change": None}
    return known


def validate(data: Any) -> Report:
    """A report from JSON that may come from anywhere.

    Raises:
        ConfigError: it is no report, or one of another version; the message names the first entry that does not fit.
    """
    data = upgraded(data)
    if not isinstance(data, Mapping) or data.get("schema") != SCHEMA:
        seen = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
        raise ConfigError(f"not a report of this version: schema {str(seen)[:40]!r}, {SCHEMA!r} was wanted")
    try:
        found = _adapter().validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the report's {where or 'content'} does not fit its schema: {first['msg']}") from error
    if (unknown := _unknown(data, _known(), "")) is not None:
        raise ConfigError(f"the report's {unknown[:200]} does not fit its schema: no entry of that name is known")
    return found


@cache
def _known() -> dict[str, Any]:
    return schema()


def _unknown(data: Any, part: Mapping[str, Any], path: str) -> str | None:
    """Where data that fits its types holds an entry that its schema does not know; None where it holds none.

    Args:
        data: from JSON.
        part: of the schema, that describes it.
        path: of the data, with a dot at its end.
    """
    part = _resolved(part)
    if "anyOf" in part:
        found = [_unknown(data, one, path) for one in part["anyOf"] if _of_kind(data, one)]
        return None if not found or None in found else found[0]
    if isinstance(data, Mapping):
        known, others = part.get("properties", {}), part.get("additionalProperties", True)
        for key, value in data.items():
            below = known.get(key, others)
            if below is False:
                return f"{path}{key}"
            if isinstance(below, Mapping) and (unknown := _unknown(value, below, f"{path}{key}.")) is not None:
                return unknown
    if isinstance(data, list | tuple):
        first = part.get("prefixItems", [])
        for number, item in enumerate(data):
            below = first[number] if number < len(first) else part.get("items")
            if isinstance(below, Mapping) and (unknown := _unknown(item, below, f"{path}{number}.")) is not None:
                return unknown
    return None


def _of_kind(data: Any, part: Mapping[str, Any]) -> bool:
    """Whether an alternative of the schema speaks of such data: an object or a list; of anything else nothing is unknown."""
    part = _resolved(part)
    kind = "object" if isinstance(data, Mapping) else "array" if isinstance(data, list | tuple) else None
    return kind is not None and part.get("type") == kind


def _resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in part:
        part = _known()["$defs"][part["$ref"].rpartition("/")[2]]
    return part
