"""Files from strangers: whatever is wrong with them, the answer is a CompressError and nothing of theirs runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import time
import warnings
import zipfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compress_cli.app import app
from compress_cli.prune import Inputs
from compress_models import MODELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.attacks import TRAP, annotated_zip, annotations, attacks, image_zip, pictures
from support.hostile_files import samples, tiny
from support.judging import judged
from torch import nn
from typer.testing import CliRunner

from compress.core.files import write_json
from compress.data import Preprocessing, open_data
from compress.data.pixels import to_pixels
from compress.data.sources import Unreadable, decode
from compress.errors import CheckpointError, CompressError, DataError
from compress.networks.architecture import Architecture
from compress.networks.checkpoint import load, save
from compress.pipeline.job import make_job
from compress.pipeline.run_folder import claim
from compress.report import store
from compress.search.base import Score
from compress.search.journal import Journal


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("place", ["root", "wrapper", "key"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, new_format: bool, place: str) -> None:
    trap = tmp_path / "trapped"
    content: Any = {
        "root": Touch(trap),
        "wrapper": {"state_dict": {"w": torch.ones(1)}, "callbacks": [Touch(trap)]},
        "key": {"w": torch.ones(2), "x": Touch(trap)},
    }[place]
    path = tmp_path / "m.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert not trap.exists()
    assert "--trust-pickle" in caught.value.hint


def test_the_trap_would_have_sprung(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(2), "x": Touch(trap)}, path)
    with pytest.raises(CheckpointError):
        load(path, trust_pickle=True)
    assert trap.exists()


def test_a_malicious_torchscript_pickle_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/code/__torch__.py", "class A: pass")
        archive.writestr("m/data.pkl", pickle.dumps(Touch(trap)))
    with pytest.raises(CheckpointError, match="run any code"):
        load(path)
    assert not trap.exists()


def test_a_malicious_array_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    np.savez(tmp_path / "d.npz", x=np.array([Touch(trap)], dtype=object), y=np.array([0]))
    with pytest.raises(DataError):
        open_data(str(tmp_path / "d.npz")).validation.images(1)
    assert not trap.exists()


def test_a_checkpoint_never_imports_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('trapped').mkdir()\ndef net(): ...\n")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "m.safetensors", nn.Linear(2, 2), architecture=Architecture("evil_module:net"))
    with pytest.raises(CheckpointError, match="would run its code"):
        load(tmp_path / "m.safetensors")
    assert not (tmp_path / "trapped").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(5_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 10**6
    with pytest.raises(CheckpointError, match="claims"):
        load(path)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"x" * 1000)
        first = archive.infolist()[0]
        for i in range(50):
            twin = zipfile.ZipInfo(f"m/data/{i}")
            twin.header_offset, twin.CRC, twin.file_size, twin.compress_size = first.header_offset, first.CRC, 1000, 1000
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    with pytest.raises(CheckpointError, match="claims"):
        load(path)


@pytest.mark.parametrize("name", ["../../evil/0/a.png", "/etc/0/a.png", "train/../../a/b.png", "..\\..\\a\\b.png"])
def test_a_path_out_of_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, picture())
    with pytest.raises(DataError, match="outside of the archive"):
        open_data(str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["d.zip"]


def picture(size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_of_absurd_size_is_skipped_not_decoded(tmp_path: Path) -> None:
    header = bytearray(picture())
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height of a PNG; its checksum is then wrong, too
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(40):
            archive.writestr(f"{i % 2}/{i}.png", bytes(header) if i == 0 else picture())
    data = open_data(str(path), preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8)))
    for split in data.splits:
        for _ in split.batches(16):
            pass
    assert sum(len(s.skipped) for s in data.splits) == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("hostile")
    return folder, samples(folder)


KINDS = ["zip", "old", "script", "safetensors", "own"]


def test_nothing_made_on_purpose_is_read(files: tuple[Path, dict[str, bytes]]) -> None:
    """All in one child, bounded in time and memory, where nothing may run or be written; one by one: benchmarks/hostile.py."""
    folder, contents = files
    made = {}
    for number, (name, data) in enumerate(attacks(contents["own"]).items()):
        made[name] = folder / f"{number}.pt"
        made[name].write_bytes(data)

    def read_all() -> None:
        wrong = []
        for name, path in made.items():
            try:
                load(path, zoo={**MODELS, "tiny": tiny}, arch=None if "own " in name else "tiny")
                wrong += [] if name.startswith("fine") else [f"{name} was read"]
            except CompressError as error:
                wrong += [] if error.hint and not name.startswith("fine") else [f"{name}: {error}"]
        assert not wrong, wrong

    for name in ("fine, own metadata 0", *(n for n in made if n.startswith(("own 'torchvision:", "own 'timm:")))):
        with suppress(CompressError):  # what is imported late is imported before the watch begins
            load(made[name], zoo={"tiny": tiny})
    verdict = judged(read_all, seconds=120.0)
    assert verdict.outcome == "read", verdict
    assert verdict.mebibytes < 500 and not Path(TRAP).exists(), verdict


def test_the_watch_sees_what_runs_and_what_takes_too_long(tmp_path: Path) -> None:
    assert judged(lambda: os.system("true")).outcome == "ran"
    assert judged(lambda: (tmp_path / "x").write_text("")).outcome == "ran"
    assert judged(lambda: time.sleep(60), seconds=0.2).outcome == "hang"
    assert judged(lambda: os.kill(os.getpid(), signal.SIGKILL)).outcome == "crash"
    assert judged(lambda: bytearray(2**33), mebibytes=512).outcome == "traceback"


def test_an_archive_with_a_member_of_no_name_is_refused(tmp_path: Path) -> None:
    path = image_zip(tmp_path / "d.zip", picture())
    data = path.read_bytes()
    place = data.index(b"PK\x01\x02")  # the first entry of the directory: its name becomes part of its comment
    length = int.from_bytes(data[place + 28 : place + 30], "little")
    path.write_bytes(data[: place + 28] + bytes(2) + data[place + 30 : place + 32] + bytes([length, 0]) + data[place + 34 :])
    with pytest.raises(DataError) as caught:
        open_data(str(path))
    assert caught.value.hint


def test_images_made_on_purpose_are_shown_or_left_out() -> None:
    to = Preprocessing((0.5,) * 3, (0.5,) * 3, (64, 64), resize=72)

    def show_all() -> None:
        for data in pictures().values():
            with suppress(Unreadable):
                assert to_pixels(decode(data), to).shape == (3, 64, 64)

    verdict = judged(show_all, seconds=60.0)
    assert verdict.outcome == "read" and verdict.mebibytes < 500, verdict


def test_annotations_made_on_purpose_are_refused(tmp_path: Path) -> None:
    """All in one child, bounded in time and memory, where nothing may run or be written."""
    to = Preprocessing((0.5,) * 3, (0.5,) * 3, (16, 20))
    made = {name: annotated_zip(tmp_path / f"{i}.zip", tree) for i, (name, tree) in enumerate(annotations().items())}

    def open_all() -> None:
        wrong = []
        for name, path in made.items():
            began = time.process_time()
            try:
                found = open_data(str(path), preprocessing=to)
                assert all(len(x) == len(y) for x, y in found.test.batches(8))
                wrong += [] if "fine" in name else [f"{name} was read"]
            except DataError as error:
                wrong += [f"{name}: {error}"] if "fine" in name or not error.hint or len(str(error)) > 600 else []
            spent = time.process_time() - began
            wrong += [f"{name} took {spent:.1f} s"] if spent > 8 else []
        assert not wrong, wrong

    with suppress(DataError):  # what is imported late is imported before the watch begins
        open_data(str(made["yaml, a gap"]), preprocessing=to)
    verdict = judged(open_all, seconds=120.0)
    assert verdict.outcome == "read", verdict
    assert verdict.mebibytes < 600 and not Path(TRAP).exists(), verdict


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_what_may_never_end_is_not_opened(kind: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "m.pt"
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "link to a device":
        path.symlink_to("/dev/zero")
    for read in (
        lambda: load(path),
        lambda: make_job(path),
        lambda: open_data("digits", labels=str(path)),
        lambda: store.read_report(path),
    ):
        verdict = judged(read, seconds=20.0)
        assert verdict.outcome == "refused" or "digits" in verdict.text or verdict.outcome == "read", verdict
    assert judged(lambda: load(path), seconds=20.0).outcome == "refused"


def test_a_run_of_a_stranger_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('trapped').mkdir()\ndef net(): ...\n")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "job.json").write_text(json.dumps({"job": {"seed": 0}, "identity": {}}))
    torch.save(Touch(tmp_path / "trapped"), tmp_path / "m.pt")
    plain = asdict(Inputs("../m.pt"))
    for code in ({"trust_pickle": True}, {"arch": "evil_module:net"}, {"data": "evil_module:net"}):
        (run / "inputs.json").write_text(json.dumps({**plain, "model": "./../m.pt", **code}))
        ended = CliRunner().invoke(app, ["pick", str(run), "--by", "knee"])
        assert ended.exit_code == 3 and "--trust-pickle" in ended.stderr
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("name", ["journal.jsonl", ".lock", ".plan.json.{pid}.tmp"])
def test_links_in_a_run_are_not_followed(name: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("half a line")
    run = tmp_path / "run"
    run.mkdir()
    (run / name.format(pid=os.getpid())).symlink_to(target)
    with suppress(CompressError), claim(run, make_job(), {}, fresh=False):
        write_json(run / "plan.json", {})
        Journal(run / "journal.jsonl", "x").add([("k", Score(0.5), {})])
    assert target.read_text() == "half a line"


@given(data=st.data())
def test_a_damaged_journal_never_gives_another_score(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "journal.jsonl"
    path.unlink(missing_ok=True)
    scores = {f"key{i}": Score(i / 7) for i in range(20)}
    Journal(path, "x").add([(k, s, {"stage": 0}) for k, s in scores.items()])
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    found = Journal(path, "x").scores
    assert all(scores.get(key) == score for key, score in found.items())
    Journal(path, "x").add([("last", Score(0.25), {})])
    assert Journal(path, "x").scores == {**found, "last": Score(0.25)}


@given(
    st.lists(
        st.one_of(st.text(max_size=30), st.sampled_from(["options=3", "a=[[[[", "=", "options.population=x", "seed=1e400"]))
    )
)
def test_any_setting_is_a_job_or_an_error_with_a_cure(lines: list[str]) -> None:
    try:
        make_job(None, lines)
    except CompressError as error:
        assert error.hint


def test_every_kind_of_error_has_a_cure() -> None:
    kinds = [CompressError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert kind.cure
    assert len(kinds) > 12


@pytest.mark.parametrize("kind", KINDS)
def test_the_unchanged_files_load(files: tuple[Path, dict[str, bytes]], kind: str) -> None:
    folder, contents = files
    (folder / "m.pt").write_bytes(contents[kind])
    assert load(folder / "m.pt", zoo={"tiny": tiny}, arch="tiny").architecture.name == "tiny"


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused(files: tuple[Path, dict[str, bytes]], kind: str, data: st.DataObject) -> None:
    folder, contents = files
    damaged = bytearray(contents[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    path = folder / "damaged.pt"
    path.write_bytes(damaged[:end])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loaded = load(path, zoo={"tiny": tiny}, arch="tiny")
        except CompressError as error:
            assert str(error)
            return
    assert all(torch.isfinite(t).all() for t in loaded.model.state_dict().values())
    assert {k: v.shape for k, v in loaded.model.state_dict().items()} == {k: v.shape for k, v in tiny().state_dict().items()}


@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x20" + bytes(7) + b"{"]),
)
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.pt"
    path.write_bytes(start + data)
    with pytest.raises(CompressError):
        load(path, zoo={"tiny": tiny}, arch="tiny")


def packed_images() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(30):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", picture())
    return buffer.getvalue()


IMAGE_ZIP = packed_images()


@given(data=st.data())
def test_a_damaged_archive_of_images_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    damaged = bytearray(IMAGE_ZIP)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    try:
        opened = open_data(str(path), preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8)))
        for split in opened.splits:
            for batch, _ in split.batches(8):
                assert torch.isfinite(batch).all()
    except CompressError as error:
        assert str(error)
