"""How do files from strangers fare? Made on purpose (tests/support/), and real ones with bits flipped, cut short and spliced.

Each input is judged in a child process of its own or, the mutated ones, in batches: it must be read or refused by a
CompressError that says what to do, within bounds of time and memory, and nothing of it may run or be written.

    python benchmarks/hostile.py [--share 1.0]    # writes benchmarks/results/hostile.json
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import json
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compress_cli.inputs import Inputs
from compress_models import MODELS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from compress_cli.render import show
from compress_cli.safe_console import SafeConsole
from support.attacks import TRAP, attacks, image_zip, picture, pictures
from support.bad_servers import BAD, Behaviour, bad
from support.hostile_files import samples, tiny
from support.judging import judged
from support.onnx_attacks import ATTACKS, attacked, moved_out
from support.onnx_attacks import network as onnx_network

from compress.core import printable, write_json
from compress.data import (
    Preprocessing,
    Unreadable,
    decode,
    open_data,
    to_pixels,
)
from compress.errors import CompressError
from compress.networks import (
    load,
    network_from,
)
from compress.pipeline import (
    finished,
    make_job,
    prune,
    read_front,
)
from compress.report import Report, read_report, report_markdown, to_timm_csv, verified
from compress.runtime import OrtRuntime, onnx_bytes, read_onnx
from compress.search import Journal
from compress.serving import Client

RESULT = ROOT / "benchmarks" / "results" / "hostile.json"
ZOO = {**MODELS, "tiny": tiny}
PRE = Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), resize=72)
BATCH = 50
Read = Callable[[Path], Any]


@dataclass
class Row:
    """One kind of input."""

    inputs: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    largest: float = 0.0
    unlawful: list[str] = field(default_factory=list)


def one_by_one(row: Row, name: str, action: Callable[[], Any], *, may_write: bool = False) -> None:
    verdict = judged(action, seconds=60.0, may_write=may_write)
    row.inputs += 1
    row.outcomes[verdict.outcome] = row.outcomes.get(verdict.outcome, 0) + 1
    row.slowest = round(max(row.slowest, verdict.seconds), 2)
    row.largest = round(max(row.largest, verdict.mebibytes))
    if not verdict.lawful:
        row.unlawful.append(f"{name}: {verdict.outcome}: {verdict.text[:200]}")


def mutated(data: bytes, seed: int) -> bytes:
    """Flipped bits, other bytes, a piece cut out, put in, moved or overwritten, an end cut off."""
    draw = random.Random(seed)
    found = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(found)) if found else 0
        length = draw.randint(1, 16)
        kind = draw.randrange(6)
        if kind == 0 and found:
            found[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found[place : place + length] = draw.randbytes(length)
        elif kind == 2:
            del found[place : place + length]
        elif kind == 3:
            found[place:place] = draw.randbytes(length)
        elif kind == 4 and found:
            source = draw.randrange(len(found))
            found[place:place] = found[source : source + 8 * length]
        else:
            found[place : place + 8] = draw.choice((b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\0\1\0\0\0"))
    return bytes(found[: draw.randint(0, len(found))] if draw.random() < 0.15 else found)


def many(row: Row, name: str, data: bytes, path: Path, read: Read, count: int) -> None:
    """Mutations in batches; a batch that is not lawful is judged one by one, to name the culprit."""

    def read_one(seed: int) -> str:
        path.write_bytes(mutated(data, seed))
        try:
            read(path)
        except CompressError as error:
            if not error.hint:
                raise AssertionError(f"no cure: {error}") from error
            return "refused"
        return "read"

    for first in range(0, count, BATCH):
        seeds = range(first, min(first + BATCH, count))
        told = path.with_suffix(".told")

        def batch(seeds: range = seeds, told: Path = told) -> None:
            outcomes: dict[str, int] = {}
            slowest = 0.0
            for seed in seeds:
                began = time.perf_counter()
                outcome = read_one(seed)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                slowest = max(slowest, time.perf_counter() - began)
            told.write_text(json.dumps([outcomes, slowest]))

        verdict = judged(batch, seconds=300.0, may_write=True)
        if verdict.outcome != "read":
            for seed in seeds:
                one_by_one(row, f"{name}, seed {seed}", lambda seed=seed: read_one(seed), may_write=True)  # type: ignore[misc]
            if verdict.outcome != "traceback":
                row.unlawful.append(f"{name}, seeds {seeds}: {verdict.outcome}: {verdict.text[:200]}")
            continue
        outcomes, slowest = json.loads(told.read_text())
        row.inputs += len(seeds)
        row.slowest = round(max(row.slowest, slowest), 2)
        row.largest = round(max(row.largest, verdict.mebibytes))
        for outcome, n in outcomes.items():
            row.outcomes[outcome] = row.outcomes.get(outcome, 0) + n


# ---- what reads what --------------------------------------------------------------------------------------------------


def checkpoint_of(path: Path) -> None:
    warnings.simplefilter("ignore")
    loaded = load(path, zoo=ZOO, arch=None if path.name.startswith("own") else "tiny")
    assert all(torch.isfinite(t).all() for t in loaded.model.state_dict().values())


def images_of(path: Path) -> None:
    warnings.simplefilter("error")
    for split in open_data(str(path), preprocessing=PRE).splits:
        for batch, _ in split.batches(8):
            assert torch.isfinite(batch).all()


def image_of(path: Path) -> None:
    warnings.simplefilter("error")
    try:
        pixels = to_pixels(decode(path.read_bytes()), PRE)
    except Unreadable:  # the split counts and names it
        return
    assert pixels.shape == (3, 64, 64)


def onnx_of(path: Path) -> None:
    with OrtRuntime().load(path) as session:
        shape = [size if size is not None and size < 512 else 1 for size in session.input_shape]
        session.run(np.zeros(shape, dtype=session.input_dtype))


def asked(behaviour: Behaviour, call: str) -> None:
    """A server that misbehaves: an answer or a refusal, within the deadline."""
    calls: dict[str, Callable[[Client], Any]] = {
        "live": lambda client: client.live(),
        "interface": lambda client: client.interface("net"),
        "load": lambda client: client.load("net"),
        "infer": lambda client: client.infer("net", {"input": np.zeros((1, 3, 8, 8), np.float32)}),
    }
    with bad(behaviour) as world, Client(world.url, timeout=0.5) as client:
        began = time.monotonic()
        try:
            calls[call](client)
        finally:
            assert time.monotonic() - began < 2.5, "the deadline was not kept"


def among_servers(row: Row, behaviour: Behaviour, call: str) -> None:
    """Not in a process of its own: there no connection is lawful."""
    began, outcome = time.monotonic(), "read"
    try:
        asked(behaviour, call)
    except CompressError:
        outcome = "refused"
    except Exception as error:
        outcome = "traceback"
        row.unlawful.append(f"{behaviour.__name__}, {call}: {type(error).__name__}: {error}"[:300])
    row.inputs += 1
    row.outcomes[outcome] = row.outcomes.get(outcome, 0) + 1
    row.slowest = round(max(row.slowest, time.monotonic() - began), 2)


TEXTS = (
    "\x1b[2J\x1b]0;PWN\x07",
    "\x9b1m\x9d0;C1\x9c",
    "\u202egnp.exe\u2066\u200b\ufeff\U000e0041",
    "a\rb\x08\x7f\u2028",
    "<img src=x onerror=alert(1)>",
    "[click](http://evil.example) ![x](//evil.example/x.png)",
    "# head\n- item\n</details>\n```\n<b>",
    "[link=http://evil.example]rich[/link]",
    "\uff1d1+1",
    "=cmd|' /C calc'!A0",
    "\t@SUM(1)",
    "\udc80",
)
"""What names and messages of strangers may hold."""


def shown(report: Report, text: str) -> None:
    """A report whose texts are all this one, in every form: nothing reaches the reader but text."""
    spoiled = dataclasses.replace(report, name=text, verdict=text, warnings=(text,), notes=(text,), method=text, command=text)
    terminal = SafeConsole(file=io.StringIO(), width=120)
    show(terminal, spoiled)
    forms = {"terminal": terminal.file.getvalue(), "Markdown": report_markdown(spoiled)}  # type: ignore[attr-defined]
    forms["CSV"] = to_timm_csv({text: spoiled})
    for form, made in forms.items():
        assert printable(made) == made, f"{form} holds control characters"
    outside = re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", forms["Markdown"])
    assert not re.search(r"<(?!/?(details|summary)>)", outside), "a tag in Markdown"
    assert not re.search(r"(?m)(^|,)\"?\s*[=@\uff1d]", forms["CSV"]), "a formula in CSV"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=float, default=1.0, help="of the mutations")
    share = parser.parse_args().share
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp())
    rows: dict[str, Row] = {}

    def done(name: str) -> None:
        row = rows[name]
        print(f"{name:34s} {row.inputs:6d} {row.outcomes} {row.slowest} s {row.largest} MiB {row.unlawful[:3]}", flush=True)
        write_json(RESULT, told(rows))
        RESULT.chmod(0o644)

    real = samples(work)
    load(ROOT / "models" / "checkpoints" / "digits-net.safetensors", zoo=ZOO)
    for library in ("torchvision.models", "timm"):  # what is imported late is imported before the watch begins
        if importlib.util.find_spec(library.partition(".")[0]) is not None:
            importlib.import_module(library)
    rows["checkpoints made on purpose"] = row = Row()
    for name, data in attacks(real["own"]).items():
        path = work / ("own.pt" if name.startswith(("own", "fine, own")) else "made.pt")
        path.write_bytes(data)
        one_by_one(row, name, lambda path=path: checkpoint_of(path))  # type: ignore[misc]
    done("checkpoints made on purpose")

    rows["images made on purpose"] = row = Row()
    for name, data in pictures().items():
        path = image_zip(work / "made.zip", data)
        one_by_one(row, name, lambda path=path: images_of(path))  # type: ignore[misc]
    done("images made on purpose")

    for kind, data in real.items():
        rows[f"checkpoints, {kind}"] = row = Row()
        many(row, kind, data, work / f"{'own' if kind == 'own' else 'other'}.pt", checkpoint_of, int(2000 * share))
        done(f"checkpoints, {kind}")

    rows["images"] = row = Row()
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind)
        many(row, kind, buffer.getvalue(), work / "image", image_of, int(1000 * share))
    done("images")

    rows["archives of images"] = row = Row()
    many(row, "zip", image_zip(work / "real.zip", picture()).read_bytes(), work / "d.zip", images_of, int(500 * share))
    done("archives of images")

    rows["arrays"] = row = Row()
    np.savez(work / "real.npz", x=np.zeros((60, 8, 8, 3), dtype=np.uint8), y=np.arange(60) % 4)
    np.savez_compressed(work / "packed.npz", x=np.zeros((60, 8, 8), dtype=np.float32), y=np.arange(60) % 4)
    for source in ("real.npz", "packed.npz"):
        many(row, source, (work / source).read_bytes(), work / "d.npz", images_of, int(500 * share))
    done("arrays")

    folder = work / "run"
    network = network_from(load(ROOT / "models" / "checkpoints" / "digits-net.safetensors", zoo=ZOO))
    data = open_data("digits", preprocessing=network.preprocessing, num_classes=10)
    flags = {"method": "uniform", "epochs": 1, "options": {"points": 4}, "latency_seconds": 0.0, "exporter": "legacy"}
    prune(network, data, make_job(flags=flags), folder)
    Inputs(model=str(ROOT / "models" / "checkpoints" / "digits-net.safetensors"), data="digits").remember(folder)
    rows["ONNX files"] = row = Row()
    many(row, "onnx", (folder / "model.onnx").read_bytes(), work / "m.onnx", onnx_of, int(2000 * share))
    done("ONNX files")

    rows["ONNX files that lead elsewhere"] = row = Row()
    for kind in ("initializer", "constant", "branch"):
        for name in ATTACKS:
            place = work / f"led {kind} {name}"
            place.mkdir()
            path = attacked(place, name, kind)
            one_by_one(row, f"{name}, {kind}", lambda path=path: onnx_bytes(path))  # type: ignore[misc]
    row.unlawful += [f"{row.outcomes['read']} were read"] if "read" in row.outcomes else []
    done("ONNX files that lead elsewhere")

    rows["ONNX files with weights beside"] = row = Row()
    model, weight = onnx_network()
    beside = work / "beside"
    beside.mkdir()
    (beside / "w.bin").write_bytes(moved_out(weight, "w.bin"))
    many(row, "beside", model.SerializeToString(), beside / "m.onnx", read_onnx, int(2000 * share))
    done("ONNX files with weights beside")

    rows["files of a run"] = row = Row()
    readers: dict[str, Read] = {
        "report.json": lambda path: read_report(path.parent),
        "front.json": lambda path: read_front(path.parent, "again"),
        "plan.json": lambda path: finished(network, path.parent),
        "model.safetensors": lambda path: finished(network, path.parent),
        "journal.jsonl": lambda path: Journal(path, ""),
        "inputs.json": lambda path: Inputs.of(path.parent),
        "job.json": lambda path: prune(network, data, make_job(flags=flags), path.parent),
    }
    for name, read in readers.items():
        broken = work / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(folder, broken)
        many(row, name, (folder / name).read_bytes(), broken / name, read, int(400 * share))
    done("files of a run")

    rows["exchanged files of a run"] = row = Row()
    for name in ("model.onnx", "base.onnx", "model.safetensors", "plan.json"):
        for other in sorted(p.name for p in folder.iterdir() if p.is_file() and p.name not in (name, ".lock")):
            swapped = work / f"swapped {name} {other}"
            shutil.copytree(folder, swapped)
            shutil.copy(folder / other, swapped / name)
            one_by_one(row, f"{other} as {name}", lambda swapped=swapped: verified(swapped))  # type: ignore[misc]
            shutil.rmtree(swapped)
    row.unlawful += [f"{row.outcomes['read']} were not noticed"] if "read" in row.outcomes else []
    done("exchanged files of a run")

    rows["servers"] = row = Row()
    for behaviour in BAD:
        for call in ("live", "interface", "load", "infer"):
            among_servers(row, behaviour, call)
    done("servers")

    rows["texts in reports, on a terminal, in Markdown and CSV"] = row = Row()
    report = read_report(folder)
    for text in TEXTS:
        one_by_one(row, repr(text), lambda text=text: shown(report, text))  # type: ignore[misc]
    done("texts in reports, on a terminal, in Markdown and CSV")

    rows["settings"] = row = Row()
    toml = b'method = "smoea"\nvalue = 0.5\nseed = 3\nignore = ["a*"]\n[options]\npopulation = 8\ngenerations = 3\n'
    many(row, "toml", toml, work / "job.toml", lambda path: make_job(path), int(3000 * share))
    line = b"options.population=20"
    said: Read = lambda path: make_job(None, [path.read_bytes().decode("latin1")])  # noqa: E731
    many(row, "--set", line, work / "set", said, int(3000 * share))
    done("settings")
    shutil.rmtree(work)
    unlawful = [line for row in rows.values() for line in row.unlawful]
    assert not Path(TRAP).exists()
    print(f"{sum(r.inputs for r in rows.values())} inputs, {len(unlawful)} unlawful")
    return 1 if unlawful else 0


def told(rows: dict[str, Row]) -> dict[str, Any]:
    total = sum(row.inputs for row in rows.values())
    return {
        "inputs": total,
        "unlawful": sum(len(r.unlawful) for r in rows.values()),
        "kinds": {k: vars(r) for k, r in rows.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
