"""An ONNX file behind MLServer: named by ``implementation`` in model-settings.json beside this file."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):
    """One session; MLServer batches in front of it."""

    async def load(self) -> bool:
        """Opens the file."""
        extra = (self.settings.parameters.extra if self.settings.parameters else None) or {}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(extra.get("threads", 0))
        wanted = onnxruntime.get_available_providers() if extra.get("device") != "cpu" else ["CPUExecutionProvider"]
        path = Path(await get_model_uri(self.settings))
        self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Runs one batch; an input that does not fit is the client's fault and gets 400."""
        wanted = {entry.name: entry for entry in self.session.get_inputs()}
        feeds = {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs}
        if set(feeds) != set(wanted):
            raise InferenceError(f"inputs {sorted(feeds)}, wanted {sorted(wanted)}")
        for name, array in feeds.items():
            shape = wanted[name].shape
            if array.ndim != len(shape) or any(isinstance(w, int) and w != g for w, g in zip(shape, array.shape, strict=True)):
                raise InferenceError(f"input {name!r} has shape {list(array.shape)}, wanted {shape}")
        try:
            answers = self.session.run(None, feeds)
        except Exception as error:  # the library's exceptions share no base class
            raise InferenceError(f"the network does not run on this input: {error}") from error
        names = [entry.name for entry in self.session.get_outputs()]
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(names, answers, strict=True)]
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs)
