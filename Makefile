# Two commands on a fresh machine: `make demo` and `make test`. Everything runs in .venv, which they create.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: all venv demo test slow servers ray consumers browser examples notebooks docs site lint format clean

all: lint test

venv: .venv/.installed

# Only again when the dependencies may have changed.
.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is wanted: make PYTHON=python3.11"'
	$(BIN)/python -m pip install --quiet --editable '.[dev,timm]'
	touch $@

demo: venv
	$(BIN)/compress demo --out runs/demo

test: venv
	$(BIN)/pytest -q

slow: venv
	HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-slow} $(BIN)/pytest -q -m 'not gpu and not paper and not servers and not consumers and not browser and not site and not ray'

# Real inference servers in environments of their own, and the tests that ask them: Triton, MLServer, KServe's.
servers: venv
	tests/servers/setup.sh
	$(BIN)/pytest -q -n 0 -m servers tests/serving/test_servers.py

# Workers on Ray: clusters of two nodes on this machine, killed and put together again.
ray: venv
	$(BIN)/python -m pip install --quiet --editable '.[ray]'
	$(BIN)/pytest -q -n 0 -m ray tests/workers/test_ray.py tests/workers/test_ray_alone.py

# Other runtimes and a headless Chromium in folders of their own, and the tests that ask them.
consumers: venv
	benchmarks/consumers/setup.sh
	$(BIN)/pytest -q -n 0 -m consumers tests/export/test_consumers.py

# The report in a real browser: apt-get install chromium chromium-driver. Screenshots go to build/screenshots.
browser: venv
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	$(BIN)/pytest -q -n 0 -m browser tests/report/test_browser.py

# Own training loops on generated data, in an environment of their own.
LOOPS := plain_pytorch with_accelerate with_lightning with_transformers with_ultralytics
examples:
	test -x .venv-examples/bin/python || $(PYTHON) -m venv .venv-examples
	.venv-examples/bin/python -m pip install --quiet --editable . --requirement examples/requirements.txt
	for loop in $(LOOPS); do YOLO_OFFLINE=true .venv-examples/bin/python examples/loops/$$loop.py || exit 1; done

# The notebooks, from the first cell to the last, in the same environment; what they print is kept nowhere.
notebooks:
	test -x .venv-examples/bin/python || $(PYTHON) -m venv .venv-examples
	.venv-examples/bin/python -m pip install --quiet --editable . nbclient ipykernel ipywidgets
	.venv-examples/bin/jupyter execute examples/notebooks/*.ipynb

# The documentation as a site, every link checked: build/site/index.html.
docs: venv
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# Every page of the site in a headless Chromium: light, dark, on a phone, by a screen reader's tree; asks no other host.
site: docs
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	$(BIN)/pytest -q -n 0 -m site tests/test_site.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	test ! -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf dist build .mypy_cache .ruff_cache .import_linter_cache .hypothesis
