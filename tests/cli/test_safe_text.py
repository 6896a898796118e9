"""Text of strangers reaches terminals, Markdown and CSV as text: in every field, by every command."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from compress_models import MODELS
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.bad_servers import Wait, bad
from support.commands import DIGITS, compress
from support.serving_nets import net
from typer.testing import Result

from compress.core import csv_cell, markdown, markdown_code, printable
from compress.networks import Architecture, load, save

HOSTILE = (
    "\x1b[2J\x1b]0;PWN\x07",
    "\x9b1m\x90q\x9d0;C1\x9c\x85",
    "\u202egnp.exe\u2066\u200b\ufeff\u00ad\U000e0041\u3164",
    "a\rb\x08\x7f\x00\u2028",
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "[click](http://evil.example) ![x](//evil.example/x.png) `code` **bold** | cell | www.evil.example me@evil.example",
    "# head\n- item\n</details>\n```\n<b>out</b>",
    "[link=http://evil.example]rich[/link] [red]red[/red] [/]",
    "＝1+1",
    "=cmd|' /C calc'!A0",
    "\t@SUM(1)",
    "\udc80",
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
JUNK = "\x1b[2J\u202e.pt"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def clean(done: Result | subprocess.CompletedProcess[bytes]) -> str:
    """What went to the terminal; nothing forbidden is in it."""
    raw = done.stdout_bytes + done.stderr_bytes if isinstance(done, Result) else done.stdout + done.stderr
    said = raw.decode("utf-8", "surrogateescape")
    assert not FORBIDDEN.search(STYLE.sub("", said)), repr(FORBIDDEN.findall(STYLE.sub("", said))) + said[:400]
    return said


def filled(value: Any, text: str) -> Any:
    """Every text in some JSON, keys of mappings too, replaced; what a schema counts as a word stays in one copy each."""
    if isinstance(value, dict):
        return {key: filled(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, text) for each in value]
    return text if isinstance(value, str) else value


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where texts stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))
    if isinstance(value, str):
        yield path


def put(value: Any, path: tuple[Any, ...], text: str) -> Any:
    made = json.loads(json.dumps(value))
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = text
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "r"
    options = ["--method", "uniform", "--set", "options.points=4", "--exporter", "legacy", "--epochs", "0", "--quiet"]
    done = compress("prune", DIGITS, "--data", "digits", *options, "--latency-seconds", "0.05", "--out", folder)
    assert done.exit_code in (0, 6), done.stderr
    return folder


@pytest.fixture
def reports(run: Path, tmp_path: Path) -> list[Path]:
    """Copies of a run: in each, every text of the report that may hold anything holds one hostile text."""
    made = []
    report = json.loads((run / "report.json").read_text())
    for number, text in enumerate(HOSTILE):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        for name in ("front.json", "job.json", "latency.json", "inputs.json"):
            shutil.copy(run / name, folder / name)
        spoiled = report
        for path in places(report):
            if path[0] == "schema" or (path[-1] in ("verdict", "clock", "kind") and path[0] in ("latency", "widths")):
                continue  # words out of a list, by the schema
            spoiled = put(spoiled, path, text)
        for key in ("parity", "guard", "search", "environment", "job"):
            spoiled[key] = {**spoiled[key], text: text}
        for key in ("warnings", "notes"):
            spoiled[key] = [text]
        (folder / "report.json").write_text(json.dumps(spoiled))
        made.append(folder)
    return made


EVERY_FORM = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
"""By default each report is shown in one form, the next one in the next."""


@EVERY_FORM
@pytest.mark.parametrize("colour", [{}, {"FORCE_COLOR": "1"}])
def test_no_field_of_a_report_reaches_the_terminal_but_as_text(
    reports: list[Path], colour: dict[str, str], every: bool
) -> None:
    shown = wanted = 0
    for number, folder in enumerate(reports):
        page = [] if colour else [["--html", "--out", folder / "page.html"]]  # a file has no colours of a terminal
        forms = [[], ["--markdown"], ["--csv"], ["--json"], *page]
        for form in forms if every else [forms[number % len(forms)]]:
            wanted += form[:1] != ["--json"]
            done = compress("report", folder, *form, env=colour)
            clean(done)
            shown += done.exit_code == 0
            assert done.exit_code in (0, 3), done.stderr
    for form in ([], ["--markdown"], ["--csv"], ["--json"]):
        clean(compress("report", *reports, *form, env=colour))
    assert shown >= wanted, shown  # the law is about reports that are shown, not about refused ones


@EVERY_FORM
def test_the_files_of_a_report_hold_text(reports: list[Path], every: bool) -> None:
    names = ("page.html", "page.md", "page.csv")
    for number, folder in enumerate(reports):
        for name in names if every else names[number % 3 :][:1]:
            assert compress("report", folder, "--out", folder / name).exit_code == 0
            text = (folder / name).read_text(encoding="utf-8")
            assert not FORBIDDEN.search(text)
            if name == "page.md":
                no_tags(text)
            if name == "page.csv":
                assert not [cell for row in csv.reader(io.StringIO(text)) for cell in row if formula(cell)]


def no_tags(text: str) -> None:
    """Rendered by GitHub's rules: the only tags are our own, no link and no image."""
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    seen: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.append(tag)

    Tags().feed(rendered)
    wanted = "details summary h1 h2 p strong blockquote ul li table thead tbody tr th td pre code hr br".split()
    assert set(seen) <= set(wanted), set(seen) - set(wanted)


def formula(cell: str) -> bool:
    return unicodedata.normalize("NFKC", cell.strip())[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"-?[\d.e+-]+", cell)


def test_no_name_of_a_network_reaches_the_terminal_but_as_text(tmp_path: Path) -> None:
    loaded = load(DIGITS, zoo=MODELS)
    for number, text in enumerate(HOSTILE[:-1]):
        file = tmp_path / f"m{number}.safetensors"
        kept = {"source": text, "tool": text}
        save(file, loaded.model, architecture=Architecture(text), plan=loaded.plan, metadata=kept)
        clean(compress("inspect", file))
        onnx_file = net(tmp_path / f"n{number}.onnx", 1)
        model = onnx.load(str(onnx_file))
        for node in model.graph.node:
            node.name = text + node.op_type
        for key in ("network", "classes", "tool", "preprocessing"):
            model.metadata_props.add(key=key, value=text)
        onnx.save(model, str(onnx_file))
        profile = ["profile", onnx_file, "--seconds", "0.05", "--quiet"]
        package = ["package", onnx_file, "--out", tmp_path / f"p{number}"]
        for command in (profile, [*profile, "--markdown"], package, ["bench-kit", onnx_file, "--out", tmp_path / "kit.zip"]):
            clean(compress(*command))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_error_of_a_server_reaches_the_terminal_but_as_text(tmp_path: Path, text: str) -> None:
    body = json.dumps({"error": text, "name": text, "versions": [text], "platform": text, "inputs": [{"name": text}]}).encode()

    def refuses(connection: socket.socket, wait: Wait) -> None:
        for status in (b"500 " + text.encode("utf-8", "replace"), b"200 OK"):
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    file = net(tmp_path / "n.onnx", 1)
    (tmp_path / "repository").mkdir()
    with bad(refuses) as world:
        options = ["--url", world.url, "--repository", tmp_path / "repository", "--timeout", "2"]
        clean(compress("deploy", file, *options, "--quiet"))
        clean(compress("serve-bench", world.url, "--model", "net", "--timeout", "2", "--quiet"))


@pytest.mark.parametrize("command", ["report", "inspect", "bench", "profile", "package", "compare", "pick", "nonsense", "cite"])
def test_no_argument_and_no_file_name_reaches_the_terminal_but_as_text(tmp_path: Path, command: str) -> None:
    for number, text in enumerate(HOSTILE):
        name = text.replace("\x00", "").replace("/", "_").replace("\n", " ").strip()
        place = tmp_path / name
        if number % 2:
            place.write_bytes(b"junk")
        second = [str(place)] if command == "compare" else []
        for more in ([], [f"--{name}"], ["--out", f"{place}/no/where.json"]):
            clean(compress(command, str(place), *second, *more))


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", JUNK, "--debug"],
        ["\x1b[2J"],
        *(pytest.param(more, marks=pytest.mark.slow) for more in (["inspect", JUNK], ["inspect", "--\x9b1m"])),
    ],
    ids=lambda arguments: " ".join(arguments).encode("unicode_escape").decode(),
)
def test_the_real_command_line_is_clean_to_its_end(tmp_path: Path, arguments: list[str]) -> None:
    """A traceback, a warning and the framework's own words, from the process itself."""
    (tmp_path / JUNK).write_bytes(b"junk")
    command = [sys.executable, "-m", "compress_cli", *(str(tmp_path / a) if a == JUNK else a for a in arguments)]
    done = subprocess.run(command, capture_output=True, env=dict(os.environ), check=False, timeout=120)
    clean(done)
    assert done.returncode in (1, 2, 3)


@pytest.mark.parametrize("command", ["inspect", "package"])
def test_a_name_between_colons_becomes_no_picture(tmp_path: Path, command: str) -> None:
    """``package:Boom: ...`` of a sentence, too, would be a picture to Rich."""
    assert ":boom:" in clean(compress(command, tmp_path / "a:boom:b"))


@pytest.mark.parametrize("command", ["profile", "bench", "inspect"])
def test_a_folder_for_a_file_is_answered_with_a_file_in_it(tmp_path: Path, command: str) -> None:
    for name in ("model.onnx", "model.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
    done = compress(command, tmp_path)
    assert done.exit_code == 3 and f"hint: name the file, e.g. {tmp_path / 'model'}" in clean(done)


TEXT = (
    st.text(st.characters(), max_size=40) | st.sampled_from(HOSTILE) | st.text("<>[]()!`*_|#=-+@\\&~: \n\thw.p/s", max_size=30)
)


@given(TEXT, TEXT)
def test_whatever_a_text_is_it_stays_text(first: str, second: str) -> None:
    text = first + second
    assert not FORBIDDEN.search(printable(text))
    assert printable(printable(text)) == printable(text)
    for line in (markdown(text), markdown_code(text)):
        assert "\n" not in line
    no_tags(f"- {markdown(text)}\n\n{markdown(text)}\n\n| a | b |\n|---|---|\n| {markdown(text)} | {markdown_code(text)} |\n")
    assert not formula(csv_cell(text))
    assert not [part for part in re.split(r"[;,|\t]", csv_cell(text)) if formula(part)]


@given(st.text("abcdefgh_.0123456789 éü中×→%()", max_size=40))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert csv_cell(text) == " ".join(text.split())
    assert markdown(text).replace("\\", "") == " ".join(text.split())
