"""A Triton backend named ``onnxruntime`` for machines without the compiled one: the same repository loads unchanged."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one version of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens ``<version>/model.onnx``; threads as the compiled backend reads them, one where nothing is said."""
        config = json.loads(args["model_config"])
        chosen = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", "1")
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(chosen)
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        self.batched = config.get("max_batch_size", 0) > 0

    def execute(self, requests: list) -> list:
        """Runs what dynamic batching put together as one batch, and gives every request its rows."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs} for request in requests
        ]
        if not self.batched:
            return [self._response(self.session.run(self.outputs, feed)) for feed in feeds]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
        parts = [np.split(array, ends) for array in self.session.run(self.outputs, together)]
        return [self._response([part[index] for part in parts]) for index in range(len(requests))]

    def _response(self, arrays: list) -> "pb_utils.InferenceResponse":
        tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in zip(self.outputs, arrays, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
