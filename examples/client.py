"""Ask a server what is on an image: python client.py http://127.0.0.1:8000 repository/my-model cat.jpg [...]

Any server that speaks the v2 protocol (Triton, MLServer, KServe); the folder is what `compress package` wrote.
"""

import json
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

url, package, *pictures = sys.argv[1:]
name, told = Path(package).name, json.loads((Path(package) / "preprocessing.json").read_text())
labels, (height, width) = (Path(package) / "labels.txt").read_text(encoding="utf-8").splitlines(), told["size"]
port = json.load(urlopen(f"{url}/v2/models/{name}"))["inputs"][0]
for picture in pictures:
    image, size = Image.open(picture).convert("L" if len(told["mean"]) == 1 else "RGB"), told["resize"]
    scale = size / min(image.size) if size else 1
    image = image.resize((int(image.width * scale), int(image.height * scale)) if size else (width, height), Image.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    pixels = np.array(image.crop((left, top, left + width, top + height))).reshape(1, height, width, -1)
    if not told["embedded"]:
        pixels = ((pixels / 255 - told["mean"]) / told["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    tensor = {"name": port["name"], "shape": pixels.shape, "datatype": port["datatype"], "data": pixels.ravel().tolist()}
    request = Request(f"{url}/v2/models/{name}/infer", json.dumps({"inputs": [tensor]}).encode())
    request.add_header("Content-Type", "application/json")
    scores = np.array(json.load(urlopen(request))["outputs"][0]["data"])
    print(picture, labels[int(scores.argmax())], f"{scores.max():.3f}")
