"""A script that asks for Ray where none runs: one is started for it, and ends with it. `make ray`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.ray_nodes import alive, descendants

pytestmark = pytest.mark.ray
pytest.importorskip("ray", reason="make ray installs it")

SCRIPT = """
import sys, torch
from pathlib import Path
from torch import nn
import compress
from compress.workers import ScoresArrived
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.own = lambda: 0
    def forward(self, x):
        return self.body(x)
heard = []
def listen(event):
    if isinstance(event, ScoresArrived) and not heard:
        heard.append(event)
        print("scoring", flush=True)
        input()
network = compress.network_of(Own().eval(), example=torch.zeros(1, 3, 16, 16))
job = compress.make_job(flags={"method": "smoea", "budget": 2000, "epochs": 0, "workers": "ray:2"})
decision = compress.decide(network, None, job, Path(sys.argv[1]), listen=listen)
print(len(decision.front), flush=True)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_ray_of_its_own_is_started_and_ends(tmp_path: Path, killed: bool) -> None:
    """The script has no guard, and its network a lambda: by-value pickling takes both. Nothing is left, also after kill -9.

    Two of Ray's own helpers look for a minute whether they are needed.
    """
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    here = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": here, "RAY_AUTH_MODE": "disabled"}  # else Ray leaves a token in the home folder
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(file), str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdin is not None and run.stdout is not None
        assert run.stdout.readline().strip() == "scoring"
        started = descendants(run.pid)
        names = " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in started if alive(pid))
        assert "raylet" in names and "RayScorer" in names
        if killed:
            run.kill()
        else:
            run.stdin.write("\n")
            run.stdin.flush()
            assert int(run.stdout.readline()) > 0
        assert run.wait(60) == (-9 if killed else 0)
    ends = time.monotonic() + 150
    while any(map(alive, started)) and time.monotonic() < ends:
        time.sleep(0.2)
    assert not [pid for pid in started if alive(pid)]
