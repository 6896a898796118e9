from __future__ import annotations

import getpass
import json
import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from compress import environment


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


def test_cards_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ncase $1 in *name*) echo 'Card, 999.1, 1024';; *) echo '1500, 61, 0x0';; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert environment.capture().gpus == (environment.Gpu("Card", "999.1", 1024),)
    assert environment.gpu_state() == (environment.GpuState(1500, 61, "0x0"),)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert environment.capture().gpus == () and environment.gpu_state() == ()
