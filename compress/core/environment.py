"""What this machine is, as far as a measurement depends on it: no host, user or path is recorded."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

FLAGS_THAT_MATTER = (
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve",
)  # fmt: skip
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "tensorrt", "openvino")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card as its driver describes it."""

    name: str
    driver: str
    memory_mib: int


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a card is doing right now: read only, its settings are never changed."""

    sm_clock_mhz: int
    temperature_c: int
    throttle_reasons: str


@dataclass(frozen=True, slots=True)
class Environment:
    """The facts of a machine that a latency depends on.

    Attributes:
        cpu: the model name of the processor.
        flags: the instruction sets that change which kernels run.
        cores: logical processors of the machine.
        affinity: logical processors this process may use.
        quota: processors' worth of time the control group grants; None without a limit.
        load: runnable processes, averaged over the last minute, when captured; None where unknown.
        threads: intra-op threads the measurement used; None where that does not apply.
        gpus: NVIDIA cards with a working driver.
    """

    system: str
    machine: str
    python: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    affinity: int
    quota: float | None
    load: float | None
    threads: int | None
    versions: tuple[tuple[str, str], ...]
    gpus: tuple[Gpu, ...]

    @property
    def digest(self) -> str:
        """The identity of the machine: everything but what changes by itself (the load)."""
        facts = {key: value for key, value in asdict(self).items() if key != "load"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, object]:
        """Plain data, the digest included."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        facts |= {"flags": list(self.flags), "versions": dict(self.versions), "gpus": [asdict(gpu) for gpu in self.gpus]}
        return facts | {"digest": self.digest}

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> Environment:
        """What :meth:`to_json` wrote; the digest is taken anew."""
        plain = {field.name: facts[field.name] for field in fields(Environment)}
        plain |= {"flags": tuple(facts["flags"]), "versions": tuple(sorted(facts["versions"].items(), key=_place))}
        return Environment(**plain | {"gpus": tuple(Gpu(**gpu) for gpu in facts["gpus"])})


def _place(version: tuple[str, str]) -> int:
    return PACKAGES.index(version[0])


def capture(*, threads: int | None = None) -> Environment:
    """Look at the machine; takes milliseconds and imports no framework."""
    cpu, flags = _cpu()
    return Environment(
        system=platform.system(),
        machine=platform.machine(),
        python=platform.python_version(),
        cpu=cpu,
        flags=tuple(flag for flag in FLAGS_THAT_MATTER if flag in flags),
        cores=os.cpu_count() or 1,
        affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        quota=quota(),
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        threads=threads,
        versions=tuple((name, found) for name in PACKAGES if (found := version_of(name)) is not None),
        gpus=_gpus(),
    )


def quota() -> float | None:
    """Processors' worth of time that the control group grants; None without a limit."""
    granted = []
    for folder in _cgroup_folders():
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2, version 1
            try:
                most, period = " ".join((folder / name).read_text() for name in files).split()
                if most not in {"max", "-1"}:
                    granted.append(int(most) / int(period))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return min(granted, default=None)


def cores() -> int:
    """Processors that this process may keep busy: its affinity, and what its control group grants."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = quota()
    return own if granted is None else max(1, min(own, int(granted)))


def free_memory() -> int | None:
    """Bytes that can still be filled: what the system and the control groups have left; None where nothing is known."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))))
    for folder in _cgroup_folders():
        with suppress(OSError, ValueError, StopIteration):
            most, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
            counts = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            found.append(most - used + next(int(n) for name, n in counts if name == "inactive_file"))
    return max(0, min(found)) if found else None


def throttled() -> int:
    """How often the control group stopped this process for having used up its quota; 0 where unknown."""
    counts = [0]
    for folder in _cgroup_folders():
        try:
            entries = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
            counts.append(int(entries.get("nr_throttled", 0)))
        except (OSError, ValueError):
            continue
    return max(counts)


def gpu_state() -> tuple[GpuState, ...]:
    """Clock, temperature and throttling of each card; empty without one."""
    rows = _nvidia_smi("clocks.sm,temperature.gpu,clocks_throttle_reasons.active")
    return tuple(
        GpuState(int(clock), int(celsius), reasons) for clock, celsius, reasons in rows if clock.isdigit() and celsius.isdigit()
    )


def _cgroup_folders() -> list[Path]:
    """The control groups of this process, of both versions, innermost first: each of them can limit it."""
    root = Path("/sys/fs/cgroup")
    try:
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    folders = []
    for _, controllers, inside in (entry for entry in entries if len(entry) == 3):
        top = root if not controllers else root / "cpu" if "cpu" in controllers.split(",") else None
        if top is not None:
            own = top / inside.strip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def _cpu() -> tuple[str, set[str]]:
    name, flags = platform.processor() or platform.machine(), set[str]()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return name, flags
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() in {"flags", "Features"}:
            return name, set(value.split())
    return name, flags


def version_of(package: str) -> str | None:
    """Which version of a package is installed; None where it is not, as ours where it is run from a checkout."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[Gpu, ...]:
    rows = _nvidia_smi("name,driver_version,memory.total")
    return tuple(Gpu(name, driver, int(memory)) for name, driver, memory in rows if memory.isdigit())


def _nvidia_smi(query: str) -> list[list[str]]:
    """The driver's own tool, asked; no rows when it is missing or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    wanted = query.count(",") + 1
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines()]
    return [row for row in rows if len(row) == wanted]
