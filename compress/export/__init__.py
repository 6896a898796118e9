"""ONNX files that compute what the network computes: writing, canonicalising, and the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.export.conversion import Options as Options
    from compress.export.conversion import convert as convert
    from compress.export.conversion import file_digest as file_digest
    from compress.export.cutting_onnx import Resizable as Resizable
    from compress.export.cutting_onnx import resizable as resizable
    from compress.export.cutting_onnx import resized as resized
    from compress.export.cutting_onnx import write_resized as write_resized
    from compress.export.embedding import embed as embed
    from compress.export.embedding import embeddable as embeddable
    from compress.export.embedding import pixels_of as pixels_of
    from compress.export.exporting import BATCHES as BATCHES
    from compress.export.exporting import beside as beside
    from compress.export.exporting import export as export
    from compress.export.int8 import Quantiser as Quantiser
    from compress.export.interface import Interface as Interface
    from compress.export.interface import Port as Port
    from compress.export.interface import read_interface as read_interface
    from compress.export.interface import serving_facts as serving_facts
    from compress.export.judging import FileJudge as FileJudge
    from compress.export.parity import Parity as Parity
    from compress.export.parity import ParityVerdict as ParityVerdict
    from compress.export.parity import deviation as deviation
    from compress.export.parity import judge as judge
    from compress.export.precision import Precision as Precision
    from compress.export.precision import PrecisionLatency as PrecisionLatency
    from compress.export.precision import Precisions as Precisions
    from compress.export.precision import read_precisions as read_precisions
    from compress.export.scopes import module_of as module_of
    from compress.export.verified_export import export_verified as export_verified
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "conversion": "Options convert file_digest",
            "cutting_onnx": "Resizable resizable resized write_resized",
            "embedding": "embed embeddable pixels_of",
            "exporting": "BATCHES beside export",
            "int8": "Quantiser",
            "interface": "Interface Port read_interface serving_facts",
            "judging": "FileJudge",
            "parity": "Parity ParityVerdict deviation judge",
            "precision": "PrecisionLatency Precision Precisions read_precisions",
            "scopes": "module_of",
            "verified_export": "export_verified",
        },
    )
