"""Measures the ONNX files of this kit on this machine and writes result.json. Needs Python 3.11, NumPy and ONNX Runtime.

This file is ``bench.py`` in a bench kit (``compress bench-kit``); everything that measures lies in ``compress/`` beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OLDEST = (3, 11)


def main(arguments: list[str] | None = None) -> int:
    """Measure; returns the exit code: 0 done, 2 usage, 3 an error that is told in words."""
    if sys.version_info < OLDEST:
        return _failed(f"this is Python {sys.version.split()[0]}, {OLDEST[0]}.{OLDEST[1]} or newer is wanted")
    sys.path.insert(0, str(HERE))
    manifest = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
    options = _parser(manifest).parse_args(arguments)
    try:
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        cure = "python -m pip install numpy onnxruntime   (onnxruntime-gpu with an NVIDIA card)"
        return _failed(f"{error.name} is missing", cure)
    from compress.errors import CompressError

    try:
        return _measure(manifest, options)
    except CompressError as error:
        return _failed(error.message, error.hint)
    except OSError as error:
        return _failed(str(error), "check that the place exists and is writable")
    except KeyboardInterrupt:
        _failed("interrupted", "nothing was written")
        return 130


def _parser(manifest: dict[str, Any]) -> argparse.ArgumentParser:
    settings = manifest["settings"]
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", default="cpu", help="of cpu, cuda, tensorrt, tensorrt-fp16; several with commas")
    parser.add_argument("--batch", default=str(settings["batch"]), help="images a run, e.g. 1,8,32")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--seconds", type=float, default=settings["budget_seconds"], help="measuring time of each combination")
    parser.add_argument("--require-gpu", action="store_true", help="a node that would run on the CPU is an error")
    parser.add_argument("--out", type=Path, default=Path("result.json"), help="default: result.json")
    return parser


def _measure(manifest: dict[str, Any], options: argparse.Namespace) -> int:
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from compress.errors import ConfigError
    from compress.latency.matrix import cells, measure_all
    from compress.latency.measurement import MeasuredFile
    from compress.latency.result import Settings

    for name, wanted in manifest["digests"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != wanted:
            raise ConfigError(f"{name} is not the file that was packed", hint="unpack the kit again")
    if not options.out.resolve().parent.is_dir():
        raise ConfigError(f"{options.out} is in no folder that exists", hint="choose another --out")
    stored = manifest["settings"]
    image = stored["image"] and tuple(stored["image"])
    settings = replace(Settings(**{**stored, "image": image}), budget_seconds=options.seconds)
    try:
        batches = [int(part) for part in options.batch.split(",")]
    except ValueError as error:
        raise ConfigError(f"--batch {options.batch} is no list of numbers", hint="e.g. --batch 1,8,32") from error
    names = ("name", "sha256", "bytes", "precision")
    files = {arm: MeasuredFile(**{name: facts[name] for name in names}) for arm, facts in manifest["files"].items()}
    base, *others = ((arm, HERE / facts["path"]) for arm, facts in manifest["files"].items())
    with TemporaryDirectory() as engines:
        wanted = cells(
            options.runtime.split(","),
            batches,
            settings,
            threads=options.threads,
            require_gpu=options.require_gpu,
            engines=Path(engines),
        )
        found = measure_all(base[1], dict(others), list(wanted), files=files, kit=manifest["kit"], listen=_tell)
    aside = options.out.with_name(f".{options.out.name}.tmp")
    aside.unlink(missing_ok=True)
    with aside.open("x", encoding="utf-8") as file:
        file.write(json.dumps(found.to_json(), indent=1))
    aside.replace(options.out)
    for result in found.results:
        print(f"\n{result.runtime}, batch {result.settings.batch}, {result.settings.transfer}: {result.rounds} rounds")
        for arm in result.arms:
            ratio = result.control if arm.name == "base again" else result.ratios.get(arm.name)
            said = f"{ratio.speedup:.3f}x, {ratio.verdict} by {ratio.decided_by} time" if ratio else "the base"
            print(f"  {arm.name:24} p50 {arm.latency.p50 * 1e3:9.3f} ms   {said}")
        for flag in result.flags:
            print(f"  ! {flag}")
    for reason in found.skipped:
        print(f"skipped {reason}")
    print(f"\nwritten: {options.out}")
    return 0


def _tell(event: Any) -> None:
    if type(event).__name__ == "Phase":
        print(f"{event.detail} ...", file=sys.stderr, flush=True)


def _failed(message: str, hint: str = "") -> int:
    sys.stderr.write("error: " + message + "\n" + ("hint: " + hint + "\n" if hint else ""))
    return 3


if __name__ == "__main__":
    sys.exit(main())
