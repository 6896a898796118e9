"""ONNX Runtime: one thin class for its CPU, CUDA, TensorRT and OpenVINO execution providers.

The CPU provider is what the tests run. Of the others only the choice and the fallback are tested without a card; the
tests marked ``gpu`` run the rest where one is present.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compress.core import capture
from compress.errors import ModelError, RuntimeUnavailable, one_line
from compress.runtime.base import Array, Feed, SessionInput, Transfer, arrays_of

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = Literal["cpu", "cuda", "tensorrt", "openvino"]
PROVIDERS: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
ON_GPU = frozenset({"cuda", "tensorrt"})
NVIDIA = 0x10DE  # PCI vendor
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True, slots=True)
class OrtRuntime:
    """ONNX Runtime with one execution provider, the CPU behind it for what the provider cannot run.

    Attributes:
        provider: which one is asked for.
        threads: intra-op threads on the CPU; None leaves it to the library.
        spinning: whether idle threads burn time waiting for work: faster alone, and harmful beside anything else.
        require_gpu: a node that would run on the CPU is an error instead of a note.
        cuda_graph: capture the network once and replay it (CUDA only; needs the ``device`` transfer).
        profile_to: start of the name of a file that gets each kernel's time; empty profiles nothing.
        optimised_to: a file that gets the graph as it really runs; empty writes none.
        fp16: TensorRT may compute single precision files in half precision.
        engines: folder in which TensorRT keeps the engines it built, which takes minutes each; None builds anew every time.
    """

    provider: Provider = "cpu"
    threads: int | None = 1
    spinning: bool = False
    require_gpu: bool = False
    cuda_graph: bool = False
    profile_to: str = ""
    optimised_to: str = ""
    fp16: bool = False
    engines: Path | None = None

    @property
    def name(self) -> str:
        """``ort-cpu``, ``ort-cuda``, with ``-graph`` where CUDA graphs are on and ``-fp16`` where TensorRT may halve."""
        return f"ort-{self.provider}" + ("-graph" if self.cuda_graph else "") + ("-fp16" if self.fp16 else "")

    @property
    def on_gpu(self) -> bool:
        """Whether a card is asked for."""
        return self.provider in ON_GPU

    def available(self) -> bool:
        """Whether the wheel has the provider and the machine its device."""
        return not self.missing()

    @contextmanager
    def load(self, path: Path) -> Iterator[OrtSession]:
        """Open an ONNX file.

        Raises:
            RuntimeUnavailable: a GPU is required and absent; drop ``require_gpu`` or go to a machine that has one.
            ModelError: the file is no ONNX file this version can run; export it again.
        """
        missing = self.missing()
        if self.require_gpu and (missing or self.provider not in ON_GPU):
            raise RuntimeUnavailable(
                f"a GPU is required, but {missing or f'the {self.provider} provider runs on the CPU'}",
                hint="leave --require-gpu out to run on the CPU, or use --provider cuda where a GPU is",
            )
        provider: Provider = "cpu" if missing else self.provider
        session = self._open(path, provider)
        yield OrtSession(session, dict(self._settings(provider)), self._fallback(session, missing, path), provider)

    def missing(self) -> str:
        """Why the provider cannot run here; empty when it can. ``get_available_providers`` only lists what was compiled in."""
        import onnxruntime as ort

        wanted = PROVIDERS[self.provider]
        if wanted not in ort.get_available_providers():
            return f"this onnxruntime {ort.__version__} was built without {wanted}"
        if self.provider in ON_GPU and not gpus():
            return "this machine has no NVIDIA GPU that onnxruntime can see"
        return ""

    def _settings(self, provider: Provider) -> Iterator[tuple[str, str]]:
        yield "provider", provider
        yield "threads", "default" if self.threads is None else str(self.threads)
        yield "spinning", "on" if self.spinning else "off"
        if self.cuda_graph:
            yield "cuda_graph", "on"
        if self.fp16:
            yield "fp16", "on"

    def _open(self, path: Path, provider: Provider) -> ort.InferenceSession:
        import onnxruntime as ort

        if not path.is_file():
            raise ModelError(f"{path} is not a file", hint="give the path of an exported .onnx file")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # failures come as exceptions; the library's own lines would break the terminal's
        options.intra_op_num_threads = self.threads or 0
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self.spinning else "0")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self.profile_to:
            options.enable_profiling = True
            options.profile_file_prefix = self.profile_to
        if self.optimised_to:
            options.optimized_model_filepath = self.optimised_to
        if self.require_gpu:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        chosen: list[Any] = [PROVIDERS[provider]]
        if provider == "cuda":
            chosen = [(PROVIDERS["cuda"], {"enable_cuda_graph": "1" if self.cuda_graph else "0"})]
        if provider == "tensorrt":
            chosen = [(PROVIDERS["tensorrt"], self._tensorrt()), PROVIDERS["cuda"]]
        if provider in ON_GPU:
            getattr(ort, "preload_dlls", lambda: None)()  # since 1.21; CUDA and cuDNN lie in torch's own wheels
        if provider != "cpu" and not self.require_gpu:
            chosen.append(PROVIDERS["cpu"])
        try:
            # Its second attempt, for the CPU the same again, is announced on standard output.
            return ort.InferenceSession(str(path), options, providers=chosen, enable_fallback=int(provider != "cpu"))
        except Exception as error:  # the library's exceptions share no base class
            if self.require_gpu and "fallback to CPU" in str(error):
                raise RuntimeUnavailable(
                    f"a GPU is required, but it cannot run every node of {path.name}", hint="leave --require-gpu out"
                ) from error
            raise ModelError(
                f"onnxruntime {ort.__version__} cannot load {path}: {_short(error)}", hint=_cure(str(error))
            ) from error

    def _tensorrt(self) -> dict[str, str]:
        options = {"trt_fp16_enable": "1"} if self.fp16 else {}
        if self.engines is not None:
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(self.engines)}
        return options

    def _fallback(self, session: ort.InferenceSession, missing: str, path: Path) -> str:
        if missing:
            return f"{self.provider} was asked for, but {missing}: the CPU runs {path.name}"
        active, wanted = session.get_providers()[0], PROVIDERS[self.provider]
        if active != wanted:
            reason = f"{wanted} was asked for and {active} runs {path.name}"
            if self.require_gpu:
                raise RuntimeUnavailable(reason, hint="check the driver, CUDA and cuDNN: compress doctor")
            return reason
        elsewhere = {name: count for name, count in _placement(session).items() if name == PROVIDERS["cpu"] != wanted}
        return f"{sum(elsewhere.values())} nodes of {path.name} run on the CPU, not on {self.provider}" if elsewhere else ""


@dataclass(frozen=True, slots=True)
class OrtSession:
    """A file that ONNX Runtime has loaded: any number of inputs and outputs."""

    session: ort.InferenceSession
    options: Mapping[str, str]
    fallback: str
    provider: Provider
    inputs: tuple[SessionInput, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = self.session.get_inputs()
        if not found:
            raise ModelError("the ONNX file has no inputs, 1 or more are wanted", hint="export the network again")
        for one in found:
            if one.type not in DTYPES:
                known = ", ".join(DTYPES)
                raise ModelError(f"the ONNX input {one.name!r} is {one.type}, wanted one of {known}", hint="export it again")
        inputs = (SessionInput(i.name, _dimensions(i.shape), np.dtype(DTYPES[i.type])) for i in found)
        object.__setattr__(self, "inputs", tuple(inputs))

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The first input's dimensions; None where the file leaves them open."""
        return self.inputs[0].shape

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """The element type of the first input."""
        return self.inputs[0].dtype

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs as the file orders them."""
        return tuple(output.name for output in self.session.get_outputs())

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that are active in this session."""
        return tuple(self.session.get_providers())

    @property
    def placement(self) -> Mapping[str, int]:
        """Nodes each provider was given before it fused them."""
        return _placement(self.session)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The provenance written into the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)

    def run(self, feed: Feed) -> tuple[Array, ...]:
        """Compute the outputs for one batch.

        Raises:
            ModelError: the arrays do not fit the inputs; see ``inputs``.
        """
        try:
            return tuple(self.session.run(None, self._named(feed), self._uncaptured()))
        except Exception as error:  # the library's exceptions share no base class
            given = " and ".join(f"{array.dtype} {list(array.shape)}" for array in arrays_of(feed))
            wanted = (f"{i.dtype} {['any' if size is None else size for size in i.shape]}" for i in self.inputs)
            raise ModelError(
                f"the ONNX file does not run on {given}: {_short(error)}", hint=f"it takes {' and '.join(wanted)}"
            ) from error

    def _named(self, feed: Feed) -> dict[str, Array]:
        arrays = arrays_of(feed)
        if len(arrays) != len(self.inputs):
            names = ", ".join(i.name for i in self.inputs)
            raise ValueError(f"{len(arrays)} arrays for {len(self.inputs)} inputs ({names})")
        return {one.name: array for one, array in zip(self.inputs, arrays, strict=True)}

    def _uncaptured(self) -> ort.RunOptions | None:
        """A CUDA graph is captured by the first run and replayed on its addresses: runs on other arrays stay out."""
        if "cuda_graph" not in self.options:
            return None
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", "-1")
        return options

    def prepare(self, feed: Feed, transfer: Transfer = "e2e") -> Callable[[], object]:
        """A stopwatch-ready run; ``device`` binds inputs and outputs on the GPU once, so that no copy is counted."""
        named = self._named(feed)
        if transfer == "e2e" or self.provider not in ON_GPU:
            return lambda: self.session.run(None, named)
        import onnxruntime as ort

        binding = self.session.io_binding()
        for name, array in named.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
        for name, result in zip(self.output_names, self.run(feed), strict=True):  # fixed addresses, as CUDA graphs need
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(result, "cuda", 0))

        def on_device() -> None:
            self.session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return on_device


def _dimensions(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) and size > 0 else None for size in shape)


def gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs that ONNX Runtime can really use, as PCI device ids; ``get_device`` says GPU even without one."""
    import onnxruntime as ort

    if not hasattr(ort, "get_ep_devices"):  # before 1.22 only the driver can be asked
        return tuple(gpu.name for gpu in capture().gpus)
    devices = (entry.device for entry in ort.get_ep_devices())
    found = {
        device.device_id for device in devices if device.type == ort.OrtHardwareDeviceType.GPU and device.vendor_id == NVIDIA
    }
    return tuple(f"{identity:#06x}" for identity in sorted(found))


def _placement(session: ort.InferenceSession) -> dict[str, int]:
    counts: Counter[str] = Counter()
    if not hasattr(session, "get_provider_graph_assignment_info"):  # versions before it do not tell
        return {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def _short(error: Exception) -> str:
    """The library's message on one line, without its own prefix."""
    return one_line(one_line(error, None).split(" : ", 3)[-1])


def _cure(message: str) -> str:
    if "external data" in message.lower() or "External initializer" in message:
        return "copy the external data file into the same folder"
    if "Protobuf" in message:
        return "the file is damaged or no ONNX file: export it again"
    if "not a registered function/op" in message or "NOT_IMPLEMENTED" in message:
        return "an operator is unknown to this version: upgrade onnxruntime or export with a lower opset"
    return "export it again, or check it with: compress doctor"
