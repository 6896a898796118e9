"""Half precision: weights and arithmetic in float16, inputs and outputs as before."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx

from compress.errors import ExportError
from compress.export.canonicalise import canonicalise

NO_GAIN = "fp16 gains nothing on a CPU, which computes it in fp32 after converting: it is for GPUs, and halves the file"


def halve(source: Path, target: Path, metadata: dict[str, str]) -> tuple[str, ...]:
    """Writes a file in float16 that takes and gives what the float32 file does.

    Args:
        source: a float32 ONNX file.
        target: written in place: the caller renames it.
        metadata: its provenance.

    Returns:
        What the converter warned about: weights that float16 cannot hold.

    Raises:
        ExportError: the converter fails, or its graph is not valid.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    log = logging.getLogger("onnxruntime.transformers.onnx_model")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = OnnxModel(convert_float_to_float16(onnx.load(str(source)), keep_io_types=True))
            wrapped.topological_sort(is_deterministic=True)  # casts are appended at the end, behind their readers
            wrapped.prune_graph()
    except Exception as error:  # the converter raises whatever the graph makes it raise
        raise ExportError(f"float16 conversion failed: {' '.join(str(error).split())[:300]}", hint="stay at fp32") from error
    finally:
        log.setLevel(level)
    canonicalise(wrapped.model, name=wrapped.model.graph.name, metadata=metadata)
    target.write_bytes(wrapped.model.SerializeToString(deterministic=True))
    return tuple(dict.fromkeys(" ".join(str(warning.message).split())[:200] for warning in caught))
