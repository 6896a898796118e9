from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.timed_arms import Spin

from compress.errors import ConfigError, ModelError
from compress.latency.measurement import MeasuredFile, Measurement, identify, read_measurement
from compress.latency.protocol import Settings, measure
from compress.runtime.ort import OrtRuntime

FILE = MeasuredFile("x.onnx", "0" * 64, 7, "fp32")


@pytest.fixture(scope="module")
def found() -> Measurement:
    settings = Settings(budget_seconds=60, precision=100.0, min_rounds=12, loads=1, image=(3, 4, 4))
    result = measure(Spin(0.001), {"half": Spin(0.0005)}, runtime=OrtRuntime(), settings=settings)
    return Measurement((result,), {"base": FILE, "half": FILE}, kit="abc", skipped=("cuda: none here",))


def test_what_is_written_is_read(found: Measurement, tmp_path: Path) -> None:
    for sort in (False, True):
        (tmp_path / "m.json").write_text(json.dumps(found.to_json(), sort_keys=sort))
        assert read_measurement(tmp_path / "m.json") == found
    assert read_measurement(tmp_path / "m.json").results[0].environment.digest == found.results[0].environment.digest


def broken(facts: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    facts = copy.deepcopy(facts)
    inside: Any = facts
    for part in path[:-1]:
        inside = inside[part]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return facts


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("format",), "something else", "holds no latency"),
        (("version",), 2, "version 2, 1 is wanted"),
        (("results",), None, "damaged"),
        (("files", "base"), None, "do not belong together"),
        (("files", "base", "sha256"), "short", "no SHA-256"),
        (("results", 0, "arms", 1, "name"), "other", "do not belong together"),
        (("results", 0, "arms", 0, "wall", 0), -1.0, "no positive times"),
        (("results", 0, "arms", 0, "wall", 0), "x", "ValueError"),
        (("results", 0, "arms", 0, "wall"), [], "no positive times"),
        (("results", 0, "ratios", "half", "verdict"), "perhaps", "perhaps"),
        (("results", 0, "settings", "batch"), 0, "batch is 0"),
        (("results", 0, "settings", "surprise"), 1, "surprise"),
        (("results", 0, "environment", "versions"), {"unheard": "1"}, "can read"),
        (("results", 0), [1, 2], "TypeError"),
    ],
)
def test_damage_is_told(found: Measurement, path: tuple[Any, ...], value: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(broken(found.to_json(), path, value)))
    with pytest.raises(ConfigError, match=said) as caught:
        read_measurement(tmp_path / "m.json")
    assert caught.value.hint


@pytest.mark.parametrize("content", ["[]", "{}", "no json", "\udcff", '"text"', "[" * 100_000])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError):
        read_measurement(tmp_path / "m.json")
    with pytest.raises(ConfigError, match="does not exist"):
        read_measurement(tmp_path / "other.json")


def test_a_file_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert identify(tmp_path / "a") == MeasuredFile("a", wanted, 3)
    with pytest.raises(ModelError, match="cannot be read"):
        identify(tmp_path / "b")
