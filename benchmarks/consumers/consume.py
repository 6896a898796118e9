"""One ONNX file through one runtime that is not ours: ``consume.py CONSUMER FOLDER NAME``.

Run by the Python that has the runtime. FOLDER/NAME.json tells shapes and batches, FOLDER/NAME.input.bin has the images one
after another; the outputs go to FOLDER/NAME.CONSUMER.bin, and one JSON line to standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def openvino(path: Path, facts: dict[str, Any]) -> tuple[str, Run]:
    import openvino as ov

    core = ov.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # its own default may be bf16
    compiled = core.compile_model(core.read_model(path), "CPU")
    return ov.__version__, lambda batch: np.array(compiled([batch])[0])


def opencv(path: Path, facts: dict[str, Any]) -> tuple[str, Run]:
    import cv2

    def reading(engine: int) -> Run:
        network = cv2.dnn.readNetFromONNX(str(path), engine=engine)

        def run(batch: np.ndarray) -> np.ndarray:
            network.setInput(batch)
            return np.array(network.forward())

        return run

    version: str = cv2.__version__
    try:
        run = reading(cv2.dnn.ENGINE_AUTO)
        run(np.zeros((1, *facts["shape"]), facts["dtype"]))
    except cv2.error:  # version 5 keeps the engine of version 4
        return f"{version}, classic engine", reading(cv2.dnn.ENGINE_CLASSIC)
    return version, run


def tract(path: Path, facts: dict[str, Any]) -> tuple[str, Run]:
    import tract

    shape, kind = ",".join(str(size) for size in facts["shape"]), {"float32": "f32", "uint8": "u8"}[facts["dtype"]]

    def run(batch: np.ndarray) -> np.ndarray:
        loaded = tract.onnx().load(str(path))  # for one batch size at a time: its optimiser wants to know it
        loaded.set_input_fact(0, f"{len(batch)},{shape},{kind}")
        loaded.analyse()
        return np.array(loaded.into_model().into_runnable().run([batch])[0].to_numpy())

    return tract.version(), run


CONSUMERS = {"openvino": openvino, "opencv": opencv, "tract": tract}


def batches(folder: Path, name: str, facts: dict[str, Any]) -> Iterator[np.ndarray]:
    images = np.fromfile(folder / f"{name}.input.bin", facts["dtype"]).reshape(-1, *facts["shape"])
    start = 0
    for size in facts["batches"]:
        yield np.ascontiguousarray(images[start : start + size])
        start += size


def main() -> None:
    consumer, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    facts = json.loads((folder / f"{name}.json").read_text())
    told: dict[str, Any] = {}
    try:
        told["version"], run = CONSUMERS[consumer](folder / f"{name}.onnx", facts)
        rows = [np.asarray(run(batch), np.float32) for batch in batches(folder, name, facts)]
        wrong = [
            list(row.shape) for row, size in zip(rows, facts["batches"], strict=True) if row.shape != (size, facts["classes"])
        ]
        if wrong:
            raise ValueError(f"output shapes {wrong}")
        np.concatenate(rows).tofile(folder / f"{name}.{consumer}.bin")
    except Exception as error:  # whatever a runtime raises is the finding
        told["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
