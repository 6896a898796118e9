"""Files that say what is on images, as data: nothing in them is looked up, expanded or executed."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from compress.errors import DataError, one_line

LARGEST_XML = 8 * 2**20
LARGEST_LINES = 8 * 2**20
LARGEST_YAML = 256 * 2**10
MOST_NAMES, LONGEST_NAME = 10_000, 200
_DEEPEST, _MOST_ELEMENTS = 16, 200_000
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)


class NotUnderstood(Exception):
    """A file of annotations says something that cannot be; who reads it says which file."""


def number(text: object) -> float:
    """A finite number from a file.

    Raises:
        NotUnderstood: it is something else.
    """
    if isinstance(text, str):
        stripped = text.strip()
        found = float(stripped) if _NUMBER.fullmatch(stripped) else math.nan
    elif isinstance(text, (int, float)) and not isinstance(text, bool) and abs(text) < 1e12:
        found = float(text)
    else:
        found = math.nan
    if not math.isfinite(found):
        raise NotUnderstood(f"{str(text)[:40]!r} is no finite number")
    return found


def class_name(text: object) -> str:
    """A class's name from a file.

    Raises:
        NotUnderstood: it is no short printable text.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_NAME or not text.strip().isprintable():
        raise NotUnderstood(f"{str(text)[:40]!r} is no name of a class")
    return text.strip()


@dataclass
class XmlRecord:
    """The texts of an element by the path below it, ``bndbox/xmin``."""

    texts: dict[str, str] = field(default_factory=dict)


def xml_records(text: str, root: str, repeated: str) -> tuple[dict[str, str], list[XmlRecord]]:
    """Texts below the root of an XML document, and of the elements of one name right below it.

    Entities, document types and what is nested deeper than sixteen elements are refused, so that nothing grows by reading.

    Args:
        text: the document.
        root: the name that its first element must have.
        repeated: the elements that are records of their own, ``object``.

    Raises:
        NotUnderstood: it is not such a document.
    """
    if len(text) > LARGEST_XML:
        raise NotUnderstood(f"it has {len(text)} characters, at most {LARGEST_XML} are read")
    path: list[str] = []
    common: dict[str, str] = {}
    records: list[XmlRecord] = []
    count = 0

    def refuse(*_: object) -> int:
        raise NotUnderstood("it declares a document type or entities, which annotations do not need")

    def opened(name: str, _: Mapping[str, str]) -> None:
        nonlocal count
        count += 1
        if not path and name != root:
            raise NotUnderstood(f"its root is <{name[:40]}>, <{root}> is wanted")
        path.append(name)
        if len(path) > _DEEPEST or count > _MOST_ELEMENTS:
            raise NotUnderstood(f"it nests more than {_DEEPEST} or holds more than {_MOST_ELEMENTS} elements")
        if len(path) == 2 and name == repeated:
            records.append(XmlRecord())

    def said(characters: str) -> None:
        inside = len(path) > 1 and path[1] == repeated
        where, key = (records[-1].texts, "/".join(path[2:])) if inside else (common, "/".join(path[1:]))
        where[key] = where.get(key, "") + characters

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler, parser.CharacterDataHandler = opened, said
    parser.EndElementHandler = lambda _: path.pop()
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise NotUnderstood(f"it is no XML: {error}") from error
    return common, records


def json_object(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NotUnderstood: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"it is no JSON: {one_line(error, 120)}") from error
    if not isinstance(found, dict):
        raise NotUnderstood(f"it holds a {type(found).__name__}, an object is wanted")
    return found


def yaml_names(text: str) -> tuple[str, ...] | None:
    """The ``names`` of a data.yaml, a list or a mapping from numbers; None where it has none.

    The document is read as a graph of nodes and never built: tags, merges and aliases do nothing.

    Raises:
        NotUnderstood: it is no YAML, or its names are neither.
    """
    import yaml

    if len(text) > LARGEST_YAML:
        raise NotUnderstood(f"it has {len(text)} characters, at most {LARGEST_YAML} are read")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise NotUnderstood(f"it is no YAML: {one_line(error, 120)}") from error
    if not isinstance(node, yaml.MappingNode):
        raise NotUnderstood("it is no mapping of names to values")
    found = next((v for k, v in node.value if k.value == "names"), None)
    if found is None:
        return None
    if isinstance(found, yaml.SequenceNode):
        pairs = [(str(i), one) for i, one in enumerate(found.value)]
    elif isinstance(found, yaml.MappingNode):
        pairs = [(k.value if isinstance(k, yaml.ScalarNode) else "", v) for k, v in found.value]
    else:
        raise NotUnderstood("its names are neither a list nor a mapping")
    if len(pairs) > MOST_NAMES or not all(isinstance(v, yaml.ScalarNode) for _, v in pairs):
        raise NotUnderstood(f"its names are not up to {MOST_NAMES} texts")
    named = {key: str(value.value) for key, value in pairs}
    if set(named) != {str(i) for i in range(len(named))}:
        raise NotUnderstood("its names are not numbered from 0 without a gap")
    return tuple(class_name(named[str(i)]) for i in range(len(named)))


def lines_of_names(text: str) -> tuple[str, ...]:
    """One name a line; what begins with ``#`` or ``(`` is a remark.

    Raises:
        NotUnderstood: there are too many.
    """
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and line[0] not in "#("]
    if len(text) > LARGEST_LINES or len(names) > MOST_NAMES:
        raise NotUnderstood(f"it has {len(names)} lines, at most {MOST_NAMES} names are read")
    return tuple(class_name(name) for name in names)


def table(text: str) -> tuple[tuple[str, ...], list[tuple[str, list[float]]]]:
    """A CSV of file names and numbers: the columns' names, and (name, numbers) a row.

    Raises:
        NotUnderstood: rows of different lengths, or no numbers.
    """
    try:
        rows: list[Sequence[str]] = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        raise NotUnderstood(f"it is no CSV: {error}") from error
    if not rows or len(rows[0]) < 2:
        raise NotUnderstood("its rows are no `file,number,...`")
    head = rows[0] if not any(_NUMBER.fullmatch(cell.strip()) for cell in rows[0][1:]) else ()
    body = rows[1:] if head else rows
    columns = tuple(name.strip()[:200] for name in head[1:]) or tuple(str(i) for i in range(len(rows[0]) - 1))
    found = []
    for place, row in enumerate(body, 2 if head else 1):
        if len(row) != len(columns) + 1:
            raise NotUnderstood(f"row {place} has {len(row)} cells, {len(columns) + 1} are wanted")
        try:
            found.append((row[0].strip(), [number(cell) for cell in row[1:]]))
        except NotUnderstood as error:
            raise NotUnderstood(f"row {place}: {error}") from error
    if not found:
        raise NotUnderstood("it has no row")
    return columns, found


def understood(path: str, said: NotUnderstood, hint: str) -> DataError:
    """What a user is told."""
    return DataError(f"{path} cannot be understood: {said}", hint=hint)
