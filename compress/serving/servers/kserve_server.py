"""An ONNX file behind the KServe SDK's server: ``python kserve_server.py --http_port 8080``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from uuid import uuid4

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.errors import InvalidInput

HERE = Path(__file__).parent


class OnnxModel(Model):
    """One session; the SDK speaks the v2 protocol in front of it."""

    def __init__(self, settings: dict[str, object]) -> None:
        super().__init__(str(settings["name"]))
        self.settings = settings
        self.most = int(str(settings["max_batch"]))
        self.load()

    def load(self) -> bool:
        """Opens the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(str(self.settings["threads"]))
        wanted = onnxruntime.get_available_providers() if self.settings["device"] != "cpu" else ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, providers=wanted)
        self.ready = True
        return self.ready

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """Runs one batch; an input that does not fit is the client's fault and gets 400."""
        wanted = {entry.name: entry for entry in self.session.get_inputs()}
        feeds = {entry.name: entry.as_numpy() for entry in payload.inputs}
        if set(feeds) != set(wanted):
            raise InvalidInput(f"inputs {sorted(feeds)}, wanted {sorted(wanted)}")
        for name, array in feeds.items():
            shape = wanted[name].shape
            if array.ndim != len(shape) or any(isinstance(w, int) and w != g for w, g in zip(shape, array.shape, strict=True)):
                raise InvalidInput(f"input {name!r} has shape {list(array.shape)}, wanted {shape}")
            if self.most and len(array) > self.most:
                raise InvalidInput(f"a batch of {len(array)}, at most {self.most} is served")
        try:
            answers = self.session.run(None, feeds)
        except Exception as error:  # the library's exceptions share no base class
            raise InvalidInput(f"the network does not run on this input: {error}") from error
        outputs = []
        names = {"float32": "FP32", "float16": "FP16", "float64": "FP64", "bool": "BOOL"}
        kinds = names | {f"{sign}int{bits}": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)}
        for entry, array in zip(self.session.get_outputs(), answers, strict=True):
            output = InferOutput(entry.name, list(array.shape), kinds[str(array.dtype)])
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id or str(uuid4()), self.name, outputs)


if __name__ == "__main__":
    arguments, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
    ModelServer().start([OnnxModel(json.loads((HERE / "model.json").read_text()))])
