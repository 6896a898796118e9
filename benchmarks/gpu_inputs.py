"""What `benchmarks/gpu.py` takes along to a machine with a GPU and no internet: wheels, images, trained weights, plans.

    python benchmarks/gpu_inputs.py wheels DIR                                    # downloads them with pip (4 MiB)
    python benchmarks/gpu_inputs.py data cifar10-jpeg.zip --out images.npz        # 7,500 uint8 images (22 MiB)
    python benchmarks/gpu_inputs.py models DIR resnet56=FILE.th vgg14=FILE.pt     # in half precision (30 MiB)
    python benchmarks/gpu_inputs.py plans cifar10-jpeg.zip --models DIR           # writes benchmarks/gpu_plans (committed)

The machine is taken to have torch 2.11, Python 3.12, timm (with torchvision and safetensors), onnx, NumPy, SciPy and
scikit-learn. What the library needs besides for these measurements is WHEELS; ONNX Runtime is not among it. Plans are searched
here, on the CPU, with the weights that travel, at the MACs that C-SGD has at 5/8 of the channels; 6,000 image-forwards for
SMOEA. Of Torch-Pruning's l1 the ratio is kept that leaves those MACs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")
WHEELS = {
    "torch-pruning": "the dependency graph that tracing is checked against, and the l1 arm",
    "pydantic": "values of methods and jobs",
    "pydantic-core": "of pydantic",
    "annotated-types": "of pydantic",
    "typing-inspection": "of pydantic",
    "accelerate": "the training loop",
    "psutil": "of accelerate",
}
PLANS = Path(__file__).parent / "gpu_plans"
SHARE = 5 / 8
NETWORKS = ("resnet56", "vgg14")
METHODS = ("smoea", "l1", "csgd")


def wheels(folder: Path) -> None:
    """Downloads them, and the one of pydantic-core that pydantic wants."""
    where = [part for platform in PLATFORMS for part in ("--platform", platform)]
    how = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, *where, "-d", str(folder)]
    pip = [sys.executable, "-m", "pip", "download", "-q", *how]
    subprocess.run([*pip, *(name for name in WHEELS if name != "pydantic-core")], check=True)
    subprocess.run([*pip, core_of(next(folder.glob("pydantic-*.whl")))], check=True)
    for wheel in sorted(folder.glob("*.whl")):
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")


def core_of(wheel: Path) -> str:
    """The requirement on pydantic-core in pydantic's own metadata."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return next(line.split(": ")[1].split(";")[0] for line in lines if line.startswith("Requires-Dist: pydantic-core"))


def data(source: str, out: Path, images: int) -> None:
    """Four fifths of the images to train on, the rest to validate, uint8, (n, height, width, channels)."""
    from compress.data import Preprocessing, open_data

    plain = Preprocessing((0.0,) * 3, (1.0,) * 3, (32, 32))
    found = open_data(source, preprocessing=plain)
    assert found.train is not None
    held = {}
    for part, split, count in (("train", found.train, images * 4 // 5), ("val", found.test, images // 5)):
        x, y = next(split.batches(count, shuffle_seed=0))
        held[f"{part}_x"] = (x * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        held[f"{part}_y"] = np.asarray(y, dtype=np.int64)
    np.savez(out, **held)
    print(f"{out}: {len(held['train_y'])} and {len(held['val_y'])} images, {out.stat().st_size / 2**20:.1f} MiB")


def models(folder: Path, given: list[str]) -> None:
    """Trained weights in half precision, by the zoo's name."""
    from compress_models import MODELS
    from safetensors.torch import save_file

    from compress.networks import load

    folder.mkdir(parents=True, exist_ok=True)
    for text in given:
        name, _, file = text.partition("=")
        state = load(file, zoo=MODELS, arch=name).model.state_dict()
        half = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        save_file({key: tensor.contiguous() for key, tensor in half.items()}, folder / f"{name}.safetensors")
        print(f"{folder / name}.safetensors: {(folder / f'{name}.safetensors').stat().st_size / 2**20:.1f} MiB")


def plans(source: str, folder: Path, networks: list[str]) -> None:
    """What SMOEA and C-SGD decide for each network, at the same MACs."""
    import gpu_parts as parts

    from compress.core import write_json
    from compress.data import open_data
    from compress.pipeline import decide, make_job

    PLANS.mkdir(exist_ok=True)
    for name in networks:
        network = parts.trained(name, folder)
        share = parts.share_of_widths(parts.topology_of(network.model, network.shape), SHARE)
        images = open_data(source, preprocessing=network.preprocessing)
        write_json(PLANS / f"{name}-l1.json", parts.l1_of(network.model, network.shape, share))
        for method in ("smoea", "csgd"):
            flags = {"method": method, "value": share, "accept_chance": True, "latency_seconds": 0.0, "finalists": 0}
            flags |= {"budget": 6_000 if method == "smoea" else None, "branches": False, "prefer_fast": False}
            job = make_job(flags=flags)
            with tempfile.TemporaryDirectory() as work:
                found = decide(network, images, job, Path(work) / "run")
            write_json(PLANS / f"{name}-{method}.json", found.plan.to_json())
            print(f"{name} {method}: {len(found.plan.cuts)} groups at {share:.3f} of the MACs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("wheels").add_argument("folder", type=Path)
    part = commands.add_parser("data")
    part.add_argument("source")
    part.add_argument("--out", type=Path, required=True)
    part.add_argument("--images", type=int, default=7_500)
    part = commands.add_parser("models")
    part.add_argument("folder", type=Path)
    part.add_argument("files", nargs="+", metavar="NAME=FILE")
    part = commands.add_parser("plans")
    part.add_argument("source")
    part.add_argument("--models", type=Path, required=True)
    part.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    given = parser.parse_args()
    if given.command == "wheels":
        given.folder.mkdir(parents=True, exist_ok=True)
        wheels(given.folder)
    elif given.command == "data":
        data(given.source, given.out, given.images)
    elif given.command == "models":
        models(given.folder, given.files)
    else:
        plans(given.source, given.models, given.networks)


if __name__ == "__main__":
    main()
