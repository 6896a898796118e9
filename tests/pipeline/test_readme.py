"""The README's code runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"<!-- run by tests/pipeline/test_readme\.py -->\n```python\n(.*?)```", re.DOTALL)


def shown() -> str:
    """The one example in Python."""
    found = SHOWN.findall((ROOT / "README.md").read_text())
    assert len(found) == 1
    return str(found[0])


def test_the_first_screens_stay_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 80 and len([line for line in shown().splitlines() if line]) <= 5


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = shown().replace("runs/digits", str(tmp_path / "run")).replace("models/checkpoints", f"{ROOT}/models/checkpoints")
    exec(code, {})
    assert "MACs" in capsys.readouterr().out and (tmp_path / "run" / "model.onnx").exists()
