#!/usr/bin/env bash
# Puts the runtimes that consumers.py asks into folders of their own: .venv-consumers (PyPI), .node-consumers (npm).
# Chromium is the system's: apt-get install chromium, or CHROMIUM=/path.
set -euo pipefail
cd "$(dirname "$0")/../.."
test -x .venv-consumers/bin/python || "${PYTHON:-python3}" -m venv .venv-consumers
.venv-consumers/bin/python -m pip install --quiet openvino==2026.4.1 opencv-python-headless==5.0.0.93 tract==0.23.9
# Its install script fetches CUDA libraries; what the CPU needs is in the package.
mkdir -p .node-consumers
npm install --silent --ignore-scripts --prefix .node-consumers onnxruntime-node@1.30.0 onnxruntime-web@1.30.0 puppeteer-core@24
command -v "${CHROMIUM:-/usr/bin/chromium}" >/dev/null || { echo "Chromium is not there: apt-get install chromium" >&2; exit 1; }
