"""A bench kit: a zip that measures ONNX files on a machine which has Python, NumPy and ONNX Runtime and nothing of ours.

The protocol goes into it as the very files that run here, so that both machines measure alike by construction. What the kit
writes is a :class:`~compress.latency.measurement.Measurement`.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.core import version_of
from compress.errors import ConfigError
from compress.latency.measurement import MeasuredFile
from compress.latency.protocol import BASE, CONTROL
from compress.latency.result import Settings
from compress.runtime import onnx_bytes

PACKAGE = Path(__file__).parents[1]
SOURCES = (
    "__init__.py core/__init__.py core/faces.py core/environment.py core/events.py core/suggestions.py errors.py "
    "latency/__init__.py latency/arms.py latency/measurement.py latency/matrix.py latency/protocol.py latency/result.py "
    "latency/statistics.py runtime/__init__.py runtime/base.py runtime/ort.py"
).split()
SCRIPT = "latency/bench_kit_script.py"
_MOMENT = (2020, 1, 1, 0, 0, 0)  # the same content is the same zip

README = """\
Bench kit
=========

Measures how fast these ONNX files are on this machine, interleaved and with the base against itself as a control:

{listing}

    python -m pip install numpy onnxruntime        # onnxruntime-gpu with an NVIDIA card; Python 3.11 or newer
    python bench.py                                # the CPU, one thread, batch {batch}; writes result.json
    python bench.py --runtime cpu,cuda,tensorrt --batch 1,8,32 --seconds 60
    python bench.py --help

Keep other work off the machine, and do not lock or raise clocks: what is measured is what you will see. A card's clocks,
temperature and throttling are read and recorded, never changed. Nothing is sent anywhere; result.json holds the processor's and
card's names, versions of Python packages and times, no host or user name and no path.

Bring result.json back: compress report RUN --import result.json, or compress compare result.json other.json.

Kit {identity}, made by smaller-convnets {version}.
"""


@dataclass(frozen=True, slots=True)
class Packed:
    """A kit as bytes.

    Attributes:
        identity: digest of everything in it; what it measured carries it.
        data: the zip.
    """

    identity: str
    data: bytes
    names: tuple[str, ...]


def pack(files: Mapping[str, tuple[Path, MeasuredFile]], settings: Settings) -> Packed:
    """Put files and protocol into a zip.

    Args:
        files: arm -> (file, what it is), the base first under ``base``.
        settings: what the kit does unless its user says otherwise; budget, seed, image.

    Raises:
        ConfigError: no base, or a reserved name.
    """
    if next(iter(files), None) != BASE or CONTROL in files:
        raise ConfigError(f"the first file has to be {BASE!r} and none {CONTROL!r}", hint="name the files otherwise")
    inside = {f"files/{index}-{facts.name}": onnx_bytes(path) for index, (path, facts) in enumerate(files.values())}
    sources = {f"compress/{name}": (PACKAGE / name).read_bytes() for name in SOURCES}
    contents = {**inside, **sources, "bench.py": (PACKAGE / SCRIPT).read_bytes()}
    version = version_of("smaller-convnets") or ""
    manifest = {
        "made_by": version,
        "settings": asdict(settings),
        "files": {
            arm: {"path": path, **facts.to_json()} for (arm, (_, facts)), path in zip(files.items(), inside, strict=True)
        },
        "digests": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())},
    }
    identity = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    contents["kit.json"] = json.dumps({"kit": identity, **manifest}, indent=1, sort_keys=True).encode()
    listing = "\n".join(f"    {arm:24} {facts.name} {facts.precision}".rstrip() for arm, (_, facts) in files.items())
    contents["README.txt"] = README.format(
        listing=listing, batch=settings.batch, identity=identity, version=version or "(not installed)"
    ).encode()
    return Packed(identity, _zip(contents), tuple(sorted(contents)))


def _zip(contents: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _MOMENT), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()
