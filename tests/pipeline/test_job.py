from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.core import Figure
from compress.core.files import write, write_json
from compress.errors import CompressError, ConfigError
from compress.pipeline.job import Job, make_job, stored_values
from compress.pipeline.run_folder import claim
from compress.search.methods import METHODS


def test_precedence_is_defaults_file_settings_flags(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text("method = 'smoea'\nvalue = 0.3\nseed = 1\nround_to = 4\n[options]\npopulation = 10\n")
    job = make_job(file, ["seed=2", "options.generations=7"], {"round_to": 16, "value": None})
    assert (job.value, job.seed, job.round_to) == (0.3, 2, 16)
    assert job.options == {"population": 10, "generations": 7}
    assert make_job() == Job()


def test_a_job_survives_json() -> None:
    job = make_job(settings=["method='smoea'", "options.population=20", 'ignore=["fc", "layer4.*"]'], flags={"epochs": 0})
    again = make_job(
        flags={k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(json.dumps(job.to_json())).items()}
    )
    assert again == job


@pytest.mark.parametrize(
    "flags",
    [{}, {"target": "max_drop", "value": 1.5}, {"method": "csgd"}, {"round_to": "auto", "ignore": ("fc",)}, {"epochs": 0}],
)
def test_the_job_of_a_run_is_a_config(tmp_path: Path, flags: dict[str, object]) -> None:
    job = make_job(settings=["budget=900"], flags=flags)
    write_json(tmp_path / "job.json", {"job": job.to_json(), "identity": {}})
    assert make_job(tmp_path / "job.json") == job
    wanted = make_job(settings=["budget=900"], flags={**flags, "round_to": 4})
    assert make_job(tmp_path / "job.json", flags={"round_to": 4}) == wanted and not wanted.auto_round


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["metod='x'"], "did you mean 'method'"),
        (["method='smoae'"], "did you mean 'smoea'"),
        (["options.populatin=3"], "did you mean 'population'"),
        (["options.population=3"], "smoea, bicnn, cluster have it: --method smoea"),
        (["value=0"], "above 0"),
        (["value=1.5"], "at most 1"),
        (["value='half'"], "number"),
        (["round_to=0"], "round_to is 0"),
        (["budget=1"], "at least 100"),
        (["recover='magic'"], "recover"),
        (["seed"], "name=value"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_job(settings=settings)
    assert words in str(caught.value)


WRONG: dict[type, list[object]] = {
    bool: ["perhaps", 7],
    int: [-3, 2.5, "many"],
    float: [-0.5, float("nan"), float("inf"), "much"],
    type(None): [-0.5, 1.0, "much"],
    str: ["nope", 5],
    tuple: [5, [7j]],
}


@pytest.mark.parametrize(("method", "name"), [(m, f.name) for m in METHODS for f in fields(METHODS[m].searcher)])
def test_every_option_refuses_what_it_cannot_mean(method: str, name: str) -> None:
    default = getattr(METHODS[method].make(), name)
    for value in WRONG[type(default)][1 if name == "criterion" else 0 :]:
        with pytest.raises(ConfigError, match=rf"options\.{name}"):
            Job(method=method, options={name: value})
    Job(method=method, options={name: default})


def test_no_toml(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_bytes(b"\xff\xfe not toml")
    with pytest.raises(ConfigError, match="TOML"):
        make_job(file)


def test_a_folder_holds_one_job(tmp_path: Path) -> None:
    with claim(tmp_path / "run", Job(), {"network": "a"}, False):
        pass
    with claim(tmp_path / "run", Job(), {"network": "a"}, False):
        pass
    with pytest.raises(ConfigError, match="seed"), claim(tmp_path / "run", Job(seed=1), {"network": "a"}, False):
        pass
    with pytest.raises(ConfigError, match="network"), claim(tmp_path / "run", Job(), {"network": "b"}, False):
        pass
    (tmp_path / "run" / "journal.jsonl").write_text("old")
    with claim(tmp_path / "run", Job(seed=1), {"network": "b"}, True):
        assert not (tmp_path / "run" / "journal.jsonl").exists()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from compress.pipeline.job import Job
from compress.pipeline.run_folder import claim
with claim(Path({str(tmp_path / "run")!r}), Job(), {{}}, False):
    print("in", flush=True); input()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with pytest.raises(ConfigError, match="another process"), claim(tmp_path / "run", Job(), {}, False):
            pass
    finally:
        other.communicate("\n")
    with claim(tmp_path / "run", Job(), {}, False):
        pass


def test_files_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.json"
    write_json(target, {"a": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CompressError, match="No space left"):
        write(target, "half")
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressError, match="cannot be written"), claim(tmp_path / "file" / "run", Job(), {}, False):
        pass


@given(st.floats(1e-6, 100.0))
def test_a_drop_is_in_points_and_a_stored_one_says_so(points: float) -> None:
    job = Job(target="max_drop", value=points)
    assert job.goal.value == pytest.approx(points / 100)
    assert Job(**stored_values(json.loads(json.dumps(job.to_json())))) == job
    earlier = {name: value for name, value in job.to_json().items() if name != "unit"} | {"value": points / 100}
    assert Job(**stored_values(earlier)).value == pytest.approx(points, abs=1e-8)
    for figure in (Figure("PSNR", "dB"), Figure("MAE", "px", higher=False), Figure("a task's own")):  # in their own unit
        held = json.loads(json.dumps(job.to_json(figure)))
        assert held["unit"] == figure.unit and Job(**stored_values(held)) == job


def test_a_folder_of_an_earlier_version_that_said_points_of_everything_goes_on(tmp_path: Path) -> None:
    job, figure = Job(target="max_drop", value=0.5), Figure("PSNR", "dB")
    write_json(tmp_path / "job.json", {"job": {**job.to_json(), "unit": "points"}, "identity": {}})
    with claim(tmp_path, job, {}, False, figure):
        pass
    with claim(tmp_path / "new", job, {}, False, figure):
        assert json.loads((tmp_path / "new" / "job.json").read_text())["job"]["unit"] == "dB"


@pytest.mark.parametrize("kind", ["macs", "params", "latency"])
def test_a_share_is_stored_as_it_is(kind: str) -> None:
    job = Job(target=kind, value=0.4)  # type: ignore[arg-type]
    assert "unit" not in job.to_json()
    assert Job(**stored_values(job.to_json())) == job
