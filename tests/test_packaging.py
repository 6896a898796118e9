"""What leaves the project: the wheel's README, the image's files."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGE = (ROOT / "Dockerfile").read_text()


def test_the_readme_of_a_package_index_leads_nowhere_that_is_not_there() -> None:
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = (ROOT / "README.md").read_text()
    assert re.search(r"\]\((?!https?://)", text) and "<!--" in text
    for change in hook["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"], text)
    assert not re.search(r"\]\((?!https?://)|<!--|!\[", text)
    assert "make test" in text and "compress prune" in text and "```python" in text and "Apache-2.0" in text


def test_the_image_is_given_what_the_wheel_is_made_of() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = [*wheel["packages"], *wheel["force-include"], *PROJECT["project"]["license-files"], "README.md", "pyproject.toml"]
    copied = {path for line in re.findall(r"^COPY (?!--)(.*)$", IMAGE, re.MULTILINE) for path in line.split()[:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for path in wanted:
        first = path.split("/")[0]
        assert first in copied and first in let_in and (ROOT / path).exists(), path
    assert copied == let_in and not [path for path in copied if fnmatch.fnmatch(path, "*[*?]*")]


def test_the_images_versions_are_the_projects() -> None:
    dependencies = {text.split(";")[0].strip() for text in PROJECT["project"]["dependencies"]}
    named = set(re.findall(r'"((?:torch|torchvision|onnxruntime)>=[\d.]+)"', IMAGE))
    assert len(named) == 3 and named <= dependencies
