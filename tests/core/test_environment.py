from __future__ import annotations

import getpass
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from compress.core import environment


def test_facts_without_names_or_paths() -> None:
    found = environment.capture(threads=1)
    text = json.dumps(found.to_json())
    assert found.cores >= found.affinity >= 1 and found.cpu and found.threads == 1
    assert dict(found.versions)["torch"]
    for private in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert private not in text
    assert f'"{getpass.getuser()}"' not in text


def test_the_digest_is_the_machine_and_not_the_moment() -> None:
    found = environment.capture(threads=1)
    assert replace(found, load=99.0).digest == found.digest == environment.capture(threads=1).digest
    for change in ({"cpu": "other"}, {"threads": 2}, {"quota": 0.5}, {"flags": ()}, {"versions": ()}):
        assert replace(found, **change).digest != found.digest  # type: ignore[arg-type]


def test_the_tightest_quota_of_all_control_groups_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    (inner / "cpu.stat").write_text("usage_usec 5\nnr_throttled 7\n")
    monkeypatch.setattr(environment, "_cgroup_folders", lambda: [inner, inner.parent, tmp_path])
    assert environment.quota() == 1.5
    assert environment.throttled() == 7
    (tmp_path / "cpu.cfs_quota_us").write_text("50000\n")  # version 1
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert environment.quota() == 0.5
    (tmp_path / "cpu.cfs_quota_us").write_text("-1\n")
    assert environment.quota() == 1.5


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("0::/a/b\n", ["a/b", "a", "."]),
        ("2:cpuacct:/x\n1:cpu:/c\n0::/\n", ["cpu/c", "cpu", "."]),
        ("4:cpu,cpuacct:/\n", ["cpu"]),
        ("nonsense\n", []),
    ],
)
def test_both_versions_of_control_groups_are_found(told: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: told)
    assert environment._cgroup_folders() == [Path("/sys/fs/cgroup") / name for name in wanted]


def test_cards_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ncase $1 in *name*) echo 'Card, 999.1, 1024';; *) echo '1500, 61, 0x0';; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert environment.capture().gpus == (environment.Gpu("Card", "999.1", 1024),)
    assert environment.gpu_state() == (environment.GpuState(1500, 61, "0x0"),)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert environment.capture().gpus == () and environment.gpu_state() == ()
