"""What kill -9 leaves behind is swept by the next of its kind; what is alive, or somebody else's, is not touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core import folder_beside, sweep_beside, write
from compress.core.files import aside

HOLDS = """
import sys, time
from pathlib import Path
from compress.core import folder_beside
from compress.core.files import aside
with {what}(Path(sys.argv[1])) as made:
    (made / "half" if made.is_dir() else made).write_text("half")
    print(made, flush=True)
    time.sleep(60)
"""


def killed(path: Path, what: str) -> Path:
    """What a process left that was killed while it held it."""
    command = [sys.executable, "-c", HOLDS.format(what=what), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
    assert left.exists()
    return left


@pytest.mark.parametrize("name", ["net.onnx", "repository", "a[b]*?.onnx"])
def test_a_folder_of_a_killed_process_is_swept_by_the_next(tmp_path: Path, name: str) -> None:
    left = killed(tmp_path / name, "folder_beside")
    sweep_beside(tmp_path / "other")
    assert left.exists()
    with folder_beside(tmp_path / name):
        assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_killed_process_is_swept_by_the_next(tmp_path: Path) -> None:
    left = killed(tmp_path / "report.json", "aside")
    write(tmp_path / "report.json", "{}")
    assert left.exists()  # for a minute it may be one that is being written
    os.utime(left, (0, 0))
    write(tmp_path / "report.json", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_what_is_alive_or_somebody_elses_stays(tmp_path: Path) -> None:
    stays = [tmp_path / name for name in (".net-abcdefgh", ".net-notours", ".net-abcdefghi", "net-abcdefgh", ".net.7.tmp.x")]
    for place in stays:
        place.mkdir()
        (place / "precious").write_text("x")
        os.utime(place, (0, 0))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / ".lock").write_text("")
    (tmp_path / ".net-linklink").symlink_to(tmp_path / "outside")
    (tmp_path / ".net.12.tmp").symlink_to(tmp_path / "outside" / ".lock")
    with folder_beside(tmp_path / "net") as alive, aside(tmp_path / "net") as written:
        os.utime(alive, (0, 0))
        os.utime(written, (0, 0))
        with folder_beside(tmp_path / "net"), aside(tmp_path / "other"):
            assert alive.exists()
        sweep_beside(tmp_path / "net")
        assert alive.exists()
        assert written.exists()
    assert all((place / "precious").exists() for place in stays)
    assert (tmp_path / "outside" / ".lock").exists()


def test_an_empty_folder_that_nobody_locked_goes_after_a_while(tmp_path: Path) -> None:
    left = tmp_path / ".net-abcdefgh"
    left.mkdir()
    sweep_beside(tmp_path / "net")
    assert left.exists()
    os.utime(left, (0, 0))
    sweep_beside(tmp_path / "net")
    assert not left.exists()
