"""The faces of the rooms: what a type checker sees is what is loaded, and nothing is loaded before it is used."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from support.rooms import LIBRARY, ROOMS, stated


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_loads_what_it_states(room: str) -> None:
    face, names = import_module(f"compress.{room}"), stated(room)
    assert sorted(names) == face.__all__ and set(names) <= set(dir(face))
    for name, module in names.items():
        assert getattr(face, name) is getattr(import_module(module), name)


@pytest.mark.parametrize("room", ROOMS)
def test_no_name_of_a_face_hides_a_module(room: str) -> None:
    modules = {p.stem for p in (LIBRARY / room).iterdir()}
    assert not modules & set(stated(room))


def test_what_is_imported_from_a_face_is_there() -> None:
    """Nothing checks types in tests and benchmarks, and a function's own imports run late: a name that is gone is seen here."""
    root, gone = LIBRARY.parent, []
    faces = {f"compress.{room}": set(stated(room)) | {"lazy"} for room in ROOMS}
    for folder in ("compress", "cli", "models", "benchmarks", "tests", "examples"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module in faces:
                    modules = {p.stem for p in (LIBRARY / node.module.partition(".")[2]).iterdir()}
                    names = {alias.name for alias in node.names} - faces[node.module] - modules
                    gone += [f"{file.relative_to(root)}:{node.lineno}: {node.module} has no {name}" for name in names]
    assert not gone


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"'compress\.core' has no attribute 'Plann'"):
        import_module("compress.core").Plann  # noqa: B018


@cache
def sources() -> dict[Path, ast.Module]:
    """The library's files, parsed; the servers' run elsewhere, alone."""
    return {p: ast.parse(p.read_text()) for p in LIBRARY.rglob("*.py") if "servers" not in p.parts}


def types_of(tree: ast.Module) -> Iterator[str]:
    """Classes, and what a module names in CamelCase at its top: aliases and new types."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        yield from (t.id for t in targets if isinstance(t, ast.Name) and t.id[0].isupper() and not t.id.isupper())


def test_a_type_name_is_used_once() -> None:
    """Two things of one name are told apart by nobody."""
    found = [(name, path.name) for path, tree in sources().items() for name in types_of(tree)]
    names = [name for name, _ in found]
    assert not sorted((name, file) for name, file in found if names.count(name) > 1)


def fields_of(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> set[str]:
    """What a dataclass is built from, inherited fields too."""
    inherited = [fields_of(classes[b.id], classes) for b in node.bases if isinstance(b, ast.Name) and b.id in classes]
    return set().union(*inherited) | {
        row.target.id
        for row in node.body
        if isinstance(row, ast.AnnAssign)
        and isinstance(row.target, ast.Name)
        and "ClassVar" not in ast.unparse(row.annotation)
        and (row.value is None or "init=False" not in ast.unparse(row.value))
    }


def test_many_fields_are_filled_by_keyword() -> None:
    """Where a dataclass has more than four fields, its n-th argument says nothing to a reader."""
    elsewhere = [p for root in ("cli", "models") for p in (LIBRARY.parent / root).rglob("*.py")]
    trees = {**sources(), **{p: ast.parse(p.read_text()) for p in elsewhere}}
    nodes = {path: list(ast.walk(tree)) for path, tree in trees.items()}
    classes = {n.name: n for found in nodes.values() for n in found if isinstance(n, ast.ClassDef)}
    large = {
        name
        for name, node in classes.items()
        if any("dataclass" in ast.unparse(d) for d in node.decorator_list) and len(fields_of(node, classes)) > 4
    }
    assert len(large) > 50
    calls = [(p, n) for p, found in nodes.items() for n in found if isinstance(n, ast.Call) and n.args]
    named = [(p, n, n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, "id", "")) for p, n in calls]
    assert not [f"{path.name}:{call.lineno} {name}" for path, call, name in named if name in large]


def test_a_test_file_s_name_is_used_once() -> None:
    """pytest imports test files by their bare names: of two that share one, the second is never run."""
    names = Counter(path.name for path in (LIBRARY.parent / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
