"""Sessions that run a network: torch itself, and ONNX Runtime with each of its execution providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core import lazy

if TYPE_CHECKING:
    from compress.runtime.base import TORCH_RUNTIMES as TORCH_RUNTIMES
    from compress.runtime.base import Array as Array
    from compress.runtime.base import Feed as Feed
    from compress.runtime.base import Runtime as Runtime
    from compress.runtime.base import Session as Session
    from compress.runtime.base import SessionInput as SessionInput
    from compress.runtime.base import Transfer as Transfer
    from compress.runtime.base import arrays_of as arrays_of
    from compress.runtime.base import inputs_of as inputs_of
    from compress.runtime.eager import EagerSession as EagerSession
    from compress.runtime.onnx_file import keeps_external_weights as keeps_external_weights
    from compress.runtime.onnx_file import onnx_bytes as onnx_bytes
    from compress.runtime.onnx_file import read_onnx as read_onnx
    from compress.runtime.ort import ON_GPU as ON_GPU
    from compress.runtime.ort import PROVIDERS as PROVIDERS
    from compress.runtime.ort import OrtRuntime as OrtRuntime
    from compress.runtime.ort import OrtSession as OrtSession
    from compress.runtime.ort import Provider as Provider
    from compress.runtime.torch_module import Opens as Opens
    from compress.runtime.torch_module import TimedByEvents as TimedByEvents
    from compress.runtime.torch_module import TorchRuntime as TorchRuntime
    from compress.runtime.torch_module import TorchSession as TorchSession
    from compress.runtime.torch_module import captured as captured
    from compress.runtime.torch_module import check_torch_device as check_torch_device
else:  # so that a name that is gone is an error to a type checker, and not Any
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "base": "Array Feed Runtime Session SessionInput TORCH_RUNTIMES Transfer arrays_of inputs_of",
            "eager": "EagerSession",
            "onnx_file": "keeps_external_weights onnx_bytes read_onnx",
            "ort": "ON_GPU OrtRuntime OrtSession PROVIDERS Provider",
            "torch_module": "Opens TimedByEvents TorchRuntime TorchSession captured check_torch_device",
        },
    )
