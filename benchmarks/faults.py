"""Does a run survive? Killed, out of space, without rights, twice in one folder, with a clock that jumps.

Every trial does something bad to a small run of the command line (the digits network: search, cut, recovery, fine-tuning,
export, clocking, report), once or several times, and then gives the same command again. It is passed if that ends, with the
very plan, front and weights of the run that nothing happened to, and if after every single fault no file under a final name was
half there.

    python benchmarks/faults.py [--work DIR] [--kills 50] [--only KIND ...]    # resumable, benchmarks/results/faults.json

Runs are forked off a process that has imported everything, so that a kill meets the run and not the imports. Full and read-only
file systems are real ones (a tmpfs in a namespace of its own); a write that fails at the n-th step is injected for every n.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import accelerate  # noqa: F401 (what a run imports late is imported here)
import matplotlib.figure  # noqa: F401
import onnx
import onnxruntime  # noqa: F401
import pymoo.algorithms.moo.nsga2  # noqa: F401
import sklearn.datasets  # noqa: F401
import torchvision.models  # noqa: F401
from compress_cli.app import app
from compress_models import MODELS
from safetensors import safe_open

from compress.core import write_json
from compress.networks import load
from compress.pipeline import prune  # noqa: F401
from compress.report import read_report

ROOT = Path(__file__).resolve().parent.parent
NETWORK = ROOT / "models" / "checkpoints" / "digits-net.safetensors"
RESULT = ROOT / "benchmarks" / "results" / "faults.json"
COMMON = "--data digits --macs 0.5 --exporter legacy --epochs 1 --quiet"
SEARCHED = f"{COMMON} --method smoea --budget 5000 --set options.population=6 --set options.generations=2 --latency-seconds 0.1"
SHORT = f"{COMMON} --method uniform --set options.points=4 --latency-seconds 0"
ENDED = (0, 6)  # so small a network is not faster on every day
SAME = ("plan.json", "front.json", "front.svg", "job.json")
STEPS = ("os.open", "os.fsync", "os.replace", "write")

Prepare = Callable[[], None]


def start(folder: Path, flags: str, prepare: Prepare = lambda: None) -> int:
    """The command in a child of its own; gives its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    log = os.open(Path(os.environ["FAULTS_LOG"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 99
    try:
        warnings.simplefilter("ignore")
        prepare()
        app(["prune", str(NETWORK), *flags.split(), "--out", str(folder)], prog_name="compress")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def wait(child: int, seconds: float = 300.0) -> int:
    """Its exit code; -9 for one that was killed, 98 for one that does not end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 98


def run(folder: Path, flags: str, prepare: Prepare = lambda: None) -> int:
    return wait(start(folder, flags, prepare))


# ---- what has to hold -------------------------------------------------------------------------------------------------


def half_written(folder: Path) -> list[str]:
    """Files under final names that are not whole."""
    if not folder.exists():
        return []
    bad = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            _parse(path)
        except Exception as error:  # whatever a parser says of half a file
            bad.append(f"{path.relative_to(folder)}: {type(error).__name__}: {str(error)[:100]}")
    return bad


def _parse(path: Path) -> None:
    if path.name == "report.json":
        read_report(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.name == "model.safetensors":
        load(path, zoo=MODELS)  # its digest is in its header
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            told = file.metadata()
            json.loads(told["record"] if "record" in told else told["fit"])  # kept statistics, or a training's state
            for key in file.keys():  # noqa: SIM118 (no mapping)
                file.get_tensor(key)
    elif path.suffix == ".onnx":
        onnx.checker.check_model(onnx.load(path), full_check=True)
    elif path.suffix == ".svg":
        ElementTree.parse(path)
    elif path.suffix == ".jsonl":  # grows by whole lines; the last may be torn, and is forgotten then
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    elif path.suffix == ".md":
        assert path.read_text().endswith("\n")


def identity(folder: Path) -> dict[str, str]:
    """What must be the same whatever happened."""
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in SAME}
    return {**found, "weights": load(folder / "model.safetensors", zoo=MODELS).digest}


def stage(folder: Path) -> str:
    """How far a run had come, from what it leaves."""
    marks = (
        ("report.json", "answers.json"),
        ("base.onnx",),
        ("model.safetensors",),
        ("finetune",),
        ("plan.json",),
        ("journal.jsonl",),
    )
    names = "report", "clocking", "export", "fine-tuning", "recovery", "search"
    for mark, name in zip(marks, names, strict=True):
        if any((folder / m).exists() for m in mark):
            return name
    return "before the search"


# ---- the faults -------------------------------------------------------------------------------------------------------


class Suite:
    """Trials by name, remembered in a file; each wants a fresh folder and gives facts."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.kept = work / "trials.json"
        self.trials: dict[str, dict[str, Any]] = json.loads(self.kept.read_text()) if self.kept.exists() else {}
        self.references: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}

    def reference(self, flags: str) -> dict[str, str]:
        """The run that nothing happens to."""
        if flags not in self.references:
            folder = self.work / f"reference-{hashlib.sha256(flags.encode()).hexdigest()[:6]}"
            shutil.rmtree(folder, ignore_errors=True)
            began = time.monotonic()
            code = run(folder, flags)
            self.seconds[flags] = time.monotonic() - began
            print(f"undisturbed: {self.seconds[flags]:.1f} s", flush=True)
            assert code in ENDED, f"the undisturbed run ends with {code}, see runs.log"
            assert not half_written(folder), half_written(folder)
            self.references[flags] = identity(folder)
        return self.references[flags]

    def trial(self, name: str, flags: str, bad: Callable[[Path], Iterator[dict[str, Any]]], folder: Path | None = None) -> None:
        """Does something bad, checks after each fault, runs the command to its end and compares."""
        if name in self.trials:
            return
        wanted = self.reference(flags)
        folder = folder or self.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        faults, torn = [], []
        for fault in bad(folder):
            faults.append({**fault, "stage": stage(folder)})
            torn += half_written(folder)
        code = run(folder, flags)
        same = code in ENDED and identity(folder) == wanted
        torn += half_written(folder)
        left = sorted(p.name for p in folder.glob(".*") if p.name != ".lock") if folder.exists() else []
        passed = same and not torn and not left and all(f.get("lawful", True) for f in faults)
        self.trials[name] = {"passed": passed, "faults": faults, "ended": code, "same": same, "half": torn, "left": left}
        write_json(self.kept, self.trials)
        told = ", ".join(f"{f['stage']}" for f in faults)
        print(f"{'ok  ' if passed else 'LOST'} {name:28s} {told[:60]}", flush=True)


def kills(suite: Suite, count: int) -> None:
    """SIGKILL at random moments, once to three times."""
    suite.reference(SEARCHED)
    whole = suite.seconds[SEARCHED]
    for i in range(count):
        draw = random.Random(i)
        moments = [draw.uniform(0.0, whole) for _ in range(draw.choice((1, 1, 2, 3)))]

        def bad(folder: Path, moments: list[float] = moments) -> Iterator[dict[str, Any]]:
            for moment in moments:
                child = start(folder, SEARCHED)
                time.sleep(moment)
                os.kill(child, signal.SIGKILL)
                code = wait(child)
                yield {"killed after": round(moment, 2), "code": code}

        suite.trial(f"kill {i:02d}", SEARCHED, bad)


def failing(step: int, counted: list[int]) -> Prepare:
    """From the step-th write on, there is no space left: files made, written, synced or renamed."""

    def install() -> None:
        def maybe(*_: Any) -> None:
            counted[0] += 1
            if counted[0] >= step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        real_open, real_fsync, real_replace, real_write = os.open, os.fsync, os.replace, Path.write_bytes

        def opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
            if flags & os.O_CREAT:
                maybe()
            return real_open(path, flags, *rest, **more)

        def synced(handle: Any) -> None:
            maybe()
            real_fsync(handle)

        def replaced(*arguments: Any, **more: Any) -> None:
            maybe()
            real_replace(*arguments, **more)

        def wrote(self: Path, data: Any) -> int:
            maybe_half(self, data)
            return real_write(self, data)

        def maybe_half(path: Path, data: Any) -> None:
            try:
                maybe()
            except OSError:
                real_write(path, bytes(data)[: len(data) // 2])
                raise

        os.open, os.fsync, os.replace = opened, synced, replaced  # type: ignore[assignment]
        Path.write_bytes = wrote  # type: ignore[method-assign, assignment]

    return install


def steps(suite: Suite, stride: int) -> None:
    """No space at the n-th step of writing, for every n (or every so many) until a run has fewer."""
    for step in range(1, 500, stride):
        if suite.trials.get("full at a step: all", {}).get("steps", 500) < step:
            return
        over = False

        def bad(folder: Path, step: int = step) -> Iterator[dict[str, Any]]:
            nonlocal over
            code = run(folder, SHORT, failing(step, [0]))
            over = code in ENDED
            yield {"step": step, "code": code, "lawful": code == 3 or over}

        suite.trial(f"full at step {step:03d}", SHORT, bad)
        if over:
            suite.trials["full at a step: all"] = {"passed": True, "steps": step - 1, "faults": []}
            write_json(suite.kept, suite.trials)
            return


def limits(suite: Suite, stride: int) -> None:
    """The kernel refuses files beyond a size, whoever writes them."""
    for power in range(8, 20, 2 * stride):
        size = 2**power

        def small(size: int = size) -> None:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # the log has a size, too
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        def bad(folder: Path, small: Prepare = small, size: int = size) -> Iterator[dict[str, Any]]:
            code = run(folder, SHORT, small)
            yield {"largest file": size, "code": code, "lawful": code in (3, *ENDED)}

        suite.trial(f"files of at most {size}", SHORT, bad)


def mounted(suite: Suite, place: Path, stride: int) -> None:
    """A tmpfs that is full at every sixteenth of what a run needs, and one that is read-only. Runs inside a namespace."""

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(place)], check=True)

    mount("-o", "size=64m")
    folder = place / "run"
    code = run(folder, SHORT)
    assert code in ENDED, code
    used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    for part in range(1, 17, stride):
        size = max(4096, used * part // 16)
        shutil.rmtree(folder, ignore_errors=True)

        def bad(folder: Path, size: int = size) -> Iterator[dict[str, Any]]:
            for left in place.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            mount("-o", f"remount,size={size}")
            code = run(folder, SHORT)
            mount("-o", "remount,size=64m")
            yield {"bytes": size, "code": code, "lawful": code in (3, *ENDED)}

        suite.trial(f"full disk {part:02d} of 16", SHORT, bad, folder)

    def read_only(folder: Path) -> Iterator[dict[str, Any]]:
        mount("-o", "remount,ro,size=64m")
        code = run(folder, SHORT)
        mount("-o", "remount,rw,size=64m")
        yield {"code": code, "lawful": code == 3}

    suite.trial("read-only before", SHORT, read_only, folder)

    def read_only_later(folder: Path) -> Iterator[dict[str, Any]]:
        child = start(folder, SHORT)
        time.sleep(suite.seconds[SHORT] / 2)
        os.kill(child, signal.SIGKILL)
        wait(child)
        yield from read_only(folder)

    suite.trial("read-only afterwards", SHORT, read_only_later, folder)


def twice(suite: Suite) -> None:
    """A second run in the same folder leaves at once, and the first does not notice."""
    suite.reference(SHORT)
    for i, delay in enumerate((0.0, 0.0, 0.3, 0.6, 0.9)):

        def bad(folder: Path, delay: float = delay) -> Iterator[dict[str, Any]]:
            first = start(folder, SHORT)
            time.sleep(delay * suite.seconds[SHORT])
            second = start(folder, SHORT)
            codes = wait(first), wait(second)
            # One of them may come when the other is through: it then only reads.
            lawful = sorted(codes)[0] in ENDED and all(c in (3, *ENDED) for c in codes)
            yield {"delay": delay, "codes": list(codes), "lawful": lawful}

        suite.trial(f"two runs {i}", SHORT, bad)


def jumping(shift: Callable[[int], float]) -> Prepare:
    """The wall clock is off by what the shift says at the n-th look; monotonic clocks cannot jump."""

    def install() -> None:
        looks = [0]
        real, real_ns = time.time, time.time_ns

        def off() -> float:
            looks[0] += 1
            return shift(looks[0])

        time.time = lambda: real() + off()
        time.time_ns = lambda: real_ns() + int(off() * 1e9)

    return install


def clocks(suite: Suite) -> None:
    """The wall clock jumps during a run, and between a killed run and the next; the files' times too."""
    suite.reference(SHORT)
    year = 365 * 86_400.0
    shifts: dict[str, Callable[[int], float]] = {
        "forwards": lambda n: year * n,
        "backwards": lambda n: -year * min(n, 50),
        "to and fro": lambda n: year * (-1) ** n,
    }
    for name, shift in shifts.items():
        for touched in (-year, year):

            def bad(folder: Path, shift: Callable[[int], float] = shift, touched: float = touched) -> Iterator[dict[str, Any]]:
                child = start(folder, SHORT, jumping(shift))
                time.sleep(suite.seconds[SHORT] * 0.6)
                os.kill(child, signal.SIGKILL)
                wait(child)
                then = time.time() + touched
                for path in folder.rglob("*"):
                    os.utime(path, (then, then))
                yield {"files": touched}
                code = run(folder, SHORT, jumping(lambda n: -shift(n)))
                yield {"code": code, "lawful": code in ENDED}

            suite.trial(f"clock {name}, files {'before' if touched < 0 else 'after'}", SHORT, bad)


def summary(suite: Suite) -> dict[str, Any]:
    kinds = {"kill": "kill ", "full at a step": "full at step", "file limit": "files of", "full disk": "full disk"}
    kinds |= {"read-only": "read-only", "two runs": "two runs", "clock": "clock"}
    rows = {}
    for kind, prefix in kinds.items():
        mine = [t for name, t in suite.trials.items() if name.startswith(prefix)]
        where: dict[str, int] = {}
        for t in mine:
            for fault in t["faults"]:
                where[fault["stage"]] = where.get(fault["stage"], 0) + 1
        rows[kind] = {"trials": len(mine), "passed": sum(t["passed"] for t in mine), "faults at": where}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("runs/faults"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stride", type=int, default=1, help="between the steps of writing that fail, and in the other kinds")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="*", default=["kills", "steps", "limits", "mounted", "twice", "clocks"])
    parser.add_argument("--inside", action="store_true", help="in the namespace already")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    suite = Suite(options.work.resolve())
    os.environ["FAULTS_LOG"] = str(suite.work / "runs.log")
    if options.inside:
        place = suite.work / "tmpfs"
        place.mkdir(exist_ok=True)
        mounted(suite, place, options.stride)
        return 0
    made: dict[str, Callable[[], None]] = {
        "kills": lambda: kills(suite, options.kills),
        "steps": lambda: steps(suite, options.stride),
        "limits": lambda: limits(suite, options.stride),
        "twice": lambda: twice(suite),
        "clocks": lambda: clocks(suite),
    }
    for name in options.only:
        if name != "mounted":
            made[name]()
            continue
        command = [
            "unshare",
            "-Urm",
            sys.executable,
            __file__,
            "--work",
            str(suite.work),
            "--inside",
            "--stride",
            str(options.stride),
        ]
        if subprocess.run(command, check=False).returncode:
            print("no namespace to mount in: the full disk was not tried", file=sys.stderr)
        suite.trials = json.loads(suite.kept.read_text())
    found = summary(suite)
    lost = {name: t for name, t in suite.trials.items() if not t["passed"]}
    write_json(
        options.result,
        {"kinds": found, "lost": lost, "command": {"searched": SEARCHED, "short": SHORT}, "trials": suite.trials},
    )
    for kind, row in found.items():
        print(f"{kind:16s} {row['passed']:3d} of {row['trials']:3d}   {row['faults at']}")
    return 1 if lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
