"""Puts a finished run beside the page: python examples/browser/prepare.py RUN ORT_WEB SITE

ORT_WEB is the ``dist`` folder of npm's onnxruntime-web. Then: python -m http.server -d SITE, and open the page.
"""

import json
import shutil
import sys
from pathlib import Path

from compress.export import read_interface

run, runtime, site = (Path(argument) for argument in sys.argv[1:])
interface = read_interface(run / "model.onnx")
if interface.preprocessing is None:
    sys.exit(f"{run / 'model.onnx'} does not say how its images are prepared: make the run again with this version")
site.mkdir(parents=True, exist_ok=True)
for file in ("index.html", "app.js", "style.css"):
    shutil.copy(Path(__file__).parent / file, site)
for file in ("base.onnx", "model.onnx"):
    shutil.copy(run / file, site)
(site / "ort").mkdir(exist_ok=True)
for file in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
    shutil.copy(runtime / file, site / "ort")
about = {"name": run.name, **interface.preprocessing.to_json(), "classes": list(interface.classes)}
about["bytes"] = {file: (run / f"{file}.onnx").stat().st_size for file in ("base", "model")}
(site / "model.json").write_text(json.dumps(about))
print(f"python -m http.server -d {site} 8080")
