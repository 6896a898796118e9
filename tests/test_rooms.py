"""The faces of the rooms: what a type checker sees is what is loaded, and nothing is loaded before it is used."""

from __future__ import annotations

import ast
from importlib import import_module

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


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match=r"'compress\.core' has no attribute 'Plann'"):
        import_module("compress.core").Plann  # noqa: B018


def test_a_class_name_is_used_once() -> None:
    """Two things of one name are told apart by nobody; the servers' files run elsewhere, alone."""
    files = [p for p in LIBRARY.rglob("*.py") if "servers" not in p.parts]
    found = [(n.name, p.name) for p in files for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.ClassDef)]
    names = [name for name, _ in found]
    assert not sorted((name, file) for name, file in found if names.count(name) > 1)
