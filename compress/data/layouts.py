"""Which images of a source belong to which part and have which target, by the names of folders and files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from compress.core import plural
from compress.data.sources import Files
from compress.data.targets import Targets
from compress.errors import DataError

PARTS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Images with targets.

    Attributes:
        targets: by the image's number.
        parts: the image's number -> ``train``, ``val``, ``test``, or ``""`` where nobody has divided them.
        classes: names, where there are any.
        notes: what the user should know.
    """

    targets: Targets
    parts: Mapping[int, str]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def part_of(path: str) -> str:
    """The part that a folder on the way to a file names: ``train2017/1.jpg`` is of train; empty where none does."""
    for folder in PurePosixPath(path).parent.parts:
        if (found := PARTS.get(folder.lower().rstrip("0123456789-_"))) is not None:
            return found
    return ""


def replaced(path: str, names: Sequence[str], by: Sequence[str]) -> Iterator[str]:
    """A path with a folder of one of these names (any case) replaced, last folder first."""
    parts = PurePosixPath(path).parts
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() in names:
            for other in by:
                yield "/".join((*parts[:place], other, *parts[place + 1 :]))


def sets_of(files: Files, members: Sequence[int], kind: str) -> tuple[dict[int, str], tuple[str, ...]]:
    """The parts that VOC's ``ImageSets/<kind>/*.txt`` make of its images; without such files, those that folders make.

    Raises:
        DataError: a list names an image that is not there, or the parts share one.
    """
    lists = {
        PARTS[stem]: path
        for path in files.texts
        if f"/imagesets/{kind.lower()}/" in f"/{path.lower()}" and (stem := PurePosixPath(path).stem.lower()) in PARTS
    }
    if not lists:
        return {index: part_of(files.name(index)) for index in members}, ()
    by_stem = {PurePosixPath(files.name(index)).stem: index for index in members}
    parts: dict[int, str] = {}
    for part, path in lists.items():
        for line in files.text(path).splitlines():
            stem = line.split()[0] if line.strip() else ""
            if not stem:
                continue
            if stem not in by_stem:
                raise DataError(f"{path} names {stem[:80]!r}, which is no image here", hint="remove the line or add the image")
            if parts.setdefault(by_stem[stem], part) != part:
                raise DataError(f"{path} names {stem!r}, which is in {parts[by_stem[stem]]}, too", hint="divide them anew")
    outside = len(members) - len(parts)
    return parts, (f"{plural(outside, 'image')} that no list in ImageSets/{kind} names left out",) if outside else ()


def pairs(files: Files, names: Mapping[str, Sequence[str]], suffixes: Sequence[str]) -> dict[int, int]:
    """Images and the images of the same name beside them: ``images/a.jpg`` and ``masks/a.png``.

    Args:
        files: the source.
        names: a folder's name (lower case) -> those of the folders that may hold its targets.
        suffixes: what a target's folder may append to the image's: ``train/``, ``trainannot/``.

    Returns:
        image -> target, empty where no such folders are.

    Raises:
        DataError: an image of a folder that has such a partner has no target in it.
    """
    folders: dict[str, dict[str, int]] = defaultdict(dict)
    actual: dict[str, str] = {}
    for index, entry in enumerate(files.entries):
        parent, _, name = entry.path.rpartition("/")
        actual.setdefault(parent.lower(), parent)
        folders[parent.lower()][name.rpartition(".")[0]] = index
    found: dict[int, int] = {}
    for folder, members in folders.items():
        partner = next((p for p in _partners(folder, names, suffixes) if p in folders), None)
        if partner is None:
            continue
        beside = folders[partner]
        for stem, index in members.items():
            target = next((beside[s] for s in (stem, f"{stem}_mask", f"{stem}_L", f"{stem}_gt") if s in beside), None)
            if target is None:
                raise DataError(
                    f"{files.name(index)} has no target in {actual[partner]}/",
                    hint="give every image a target of the same name, or take the image away",
                )
            found[index] = target
    return found


def _partners(folder: str, names: Mapping[str, Sequence[str]], suffixes: Sequence[str]) -> Iterator[str]:
    parts = folder.split("/")
    for place in range(len(parts) - 1, -1, -1):
        for other in names.get(parts[place], ()):
            yield "/".join((*parts[:place], other, *parts[place + 1 :]))
    for suffix in suffixes:
        yield f"{folder}{suffix}"
