#!/usr/bin/env bash
# Puts three real inference servers into environments of their own, from PyPI only and without a GPU:
#   .venv-triton   NVIDIA's tritonserver 2.51 as nvidia-pytriton carries it, with our small backend named onnxruntime
#   .venv-mlserver Seldon's MLServer      .venv-kserve the KServe SDK's server
# Usage: tests/servers/setup.sh [triton] [mlserver] [kserve]      (all three without arguments; PYTHON=python3.11)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
PYTHON=${PYTHON:-python3.11}
command -v "$PYTHON" >/dev/null || { echo "$PYTHON is not there: Triton's Python stub is built for 3.11 (PYTHON=... chooses one)" >&2; exit 1; }

environment() { # name, packages...
    local name=.venv-$1
    shift
    local wanted="$PYTHON $*"
    [ "$(cat "$name/.packages" 2>/dev/null)" = "$wanted" ] && return 0
    test -x "$name/bin/python" || "$PYTHON" -m venv "$name"
    "$name/bin/python" -m pip install --quiet "$@"
    echo "$wanted" >"$name/.packages"
}

triton() {
    # numpy 2 makes this release answer 200 with empty outputs
    environment triton nvidia-pytriton==0.7.0 onnxruntime==1.31.1 'numpy<2' 'tritonclient[http,grpc]==2.73.0'
    local packages
    packages=$(.venv-triton/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    local server=$packages/pytriton/tritonserver
    mkdir -p .venv-triton/backends/python .venv-triton/backends/onnxruntime
    cp --remove-destination "$server"/backends/python/*.* .venv-triton/backends/python/
    cp --remove-destination "$server/python_backend_stubs/3.11/triton_python_backend_stub" .venv-triton/backends/python/
    chmod +x .venv-triton/backends/python/triton_python_backend_stub "$server/bin/tritonserver"
    cp "$here/onnxruntime/model.py" .venv-triton/backends/onnxruntime/
    # The stub embeds Python: its shared library lies beside the interpreter that runs, or comes from Debian.
    local library
    library=$(.venv-triton/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
    if ! [ -e "$library/libpython3.11.so.1.0" ]; then
        ldconfig -p | grep -q 'libpython3\.11\.so\.1\.0' || apt-get install -y -qq libpython3.11
        library=
    fi
    printf '%s\n' "$packages/nvidia_pytriton.libs${library:+:$library}" >.venv-triton/library_path
}

mlserver() { environment mlserver mlserver==1.7.1 onnxruntime==1.31.1; }
kserve() { environment kserve kserve==0.21.0 onnxruntime==1.31.1; }

for server in "${@:-triton mlserver kserve}"; do
    for one in $server; do "$one"; echo "$one is there"; done
done
