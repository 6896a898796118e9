"""ONNX files into networks that compute the same, and back into the file that they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.importing.network import ImportedNetwork as ImportedNetwork
    from compress.importing.network import example_of as example_of
    from compress.importing.opening import Imported as Imported
    from compress.importing.opening import OpenPort as OpenPort
    from compress.importing.opening import import_onnx as import_onnx
    from compress.importing.opening import ports_of as ports_of
    from compress.importing.parity import Proof as Proof
    from compress.importing.storing import rebuilt as rebuilt
    from compress.importing.storing import structure_digest as structure_digest
    from compress.importing.storing import structure_of as structure_of
    from compress.importing.writing import written as written
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "network": "ImportedNetwork example_of",
            "opening": "Imported OpenPort import_onnx ports_of",
            "parity": "Proof",
            "storing": "rebuilt structure_digest structure_of",
            "writing": "written",
        },
    )
