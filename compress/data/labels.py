"""From folder names to the numbers of the network's outputs."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Collection, Mapping
from pathlib import Path

from compress.core import plural, read_text
from compress.errors import DataError

_SEPARATORS = string.whitespace + ",;"
LARGEST_TABLE = 32 * 2**20
"""Bytes of a file of labels: a million classes, with names of some thirty letters."""
_INDEX = re.compile(r"(\d{1,6})(?:[_\-. ].*)?")
MOST_CLASSES = 10**6


def label_map(folders: Collection[str], labels: str, num_classes: int | None) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Folder -> label, and the name of every class.

    Args:
        folders: the class folders.
        labels: ``sorted`` (the n-th name in alphabetical order is label n), ``index-prefix`` (``0007_cat`` is label 7), or
            a file: JSON ``{"cat": 7}``, or lines of ``cat 7``, or one name a line, whose line number from 0 is the label.
        num_classes: outputs of the network, where known.

    Raises:
        DataError: a folder has no label, two share one, or a label is beyond the network's outputs.
    """
    names = sorted(folders)
    if len(names) < 2:
        raise DataError(
            f"the images have {len(names)} class{'' if len(names) == 1 else 'es'} ({', '.join(names)}), at least 2 are needed",
            hint="arrange them as FOLDER/<class>/<image>, or FOLDER/train/<class>/<image>",
        )
    if labels == "sorted":
        mapping = {name: i for i, name in enumerate(names)}
    elif labels == "index-prefix":
        mapping = {}
        for name in names:
            found = _INDEX.fullmatch(name)
            if found is None:
                raise DataError(f"folder {name!r} does not start with a label, as in 0007_cat", hint="use --labels sorted")
            mapping[name] = int(found.group(1))
    else:
        table = _read_table(Path(labels))
        unknown = [n for n in names if n not in table]
        if unknown:
            raise DataError(
                f"{labels} has no label for {len(unknown)} folders, the first: {unknown[0]!r}",
                hint="write lines of `folder label`, or one folder a line",
            )
        mapping = {n: table[n] for n in names}
    if len(set(mapping.values())) < len(mapping):
        raise DataError(f"two folders have the same label under --labels {labels}", hint="give every class its own label")
    top = max(mapping, key=lambda n: mapping[n])
    if num_classes is not None and mapping[top] >= num_classes:
        raise DataError(
            f"{len(names)} classes, folder {top!r} is label {mapping[top]}; the network has outputs 0 to {num_classes - 1}",
            hint="give the data that the network was trained on, or a network with more outputs",
        )
    by_label = {label: name for name, label in mapping.items()}
    count = num_classes if num_classes is not None else mapping[top] + 1
    return mapping, tuple(by_label.get(i, str(i)) for i in range(count))


def doubts(folders: Collection[str], labels: str, num_classes: int | None) -> tuple[str, ...]:
    """What may be wrong with a mapping that is possible."""
    if labels != "sorted" or num_classes is None or len(folders) == num_classes:
        return ()
    cure = "--labels index-prefix" if all(_INDEX.fullmatch(f) for f in folders) else "--labels FILE"
    return (
        f"{plural(len(folders), 'class folder')} for a network of {plural(num_classes, 'output')}: "
        "the n-th folder is taken for output n; "
        f"use {cure} if that is wrong",
    )


def _read_table(path: Path) -> dict[str, int]:
    try:
        text = read_text(path, most=LARGEST_TABLE)
        if text.lstrip().startswith("{"):
            table = dict(json.loads(text))
            if len(table) > MOST_CLASSES:
                raise ValueError(f"it has {len(table)} entries, at most {MOST_CLASSES} classes are known")
            return {str(k): _label(v) for k, v in table.items()}
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if len(lines) > MOST_CLASSES:
            raise ValueError(f"it has {len(lines)} lines, at most {MOST_CLASSES} classes are known")
        if all(pairs := [_pair(line) for line in lines]):
            return {name: _label(int(number)) for name, number in filter(None, pairs)}
        return {line: i for i, line in enumerate(lines)}
    except OSError as error:
        raise DataError(
            f"--labels {path}: neither sorted, index-prefix nor a readable file ({error.strerror or error})",
            hint="choose sorted, index-prefix or a file of lines `folder label`",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"--labels {path} cannot be understood: {error}", hint="write lines of `folder label`") from error


def _pair(line: str) -> tuple[str, str] | None:
    """``cat 7`` as (cat, 7), in one pass; None where no number stands apart at the end."""
    front = line.rstrip(string.digits)
    name = front.rstrip(_SEPARATORS)
    return (name, line[len(front) :]) if name and len(name) < len(front) < len(line) else None


def _label(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_CLASSES:
        raise ValueError(f"{value!r} is no label")
    return value
