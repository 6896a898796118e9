# Small networks out of large ones, on the CPU. Build it in a checkout:
#
#   docker build --build-arg TORCH_INDEX=URL -t smaller-convnets .
#   docker run --rm -v "$PWD:/work" smaller-convnets demo
#
# TORCH_INDEX is the package index that pytorch.org names for its builds for the CPU; without it PyTorch brings CUDA along, some
# four gigabytes of it.

FROM python:3.12-slim AS wheel
WORKDIR /source
RUN pip install --no-cache-dir build==1.3.0
COPY pyproject.toml README.md LICENSE ./
COPY compress compress
COPY cli cli
COPY models models
RUN python -m build --wheel --outdir /wheels .

FROM python:3.12-slim
ARG TORCH_INDEX=""
COPY --from=wheel /wheels /wheels
# The runtime for the CPU takes the place of the one for cards, which has the same modules:
# docs/adr/0014-what-an-installation-brings.md. Versions are bounded from below, as in pyproject.toml.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.9" "torchvision>=0.24" \
    && pip install --no-cache-dir /wheels/*.whl \
    && pip uninstall --yes onnxruntime-gpu onnxruntime \
    && pip install --no-cache-dir "onnxruntime>=1.23" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 compress
USER 1000
WORKDIR /work
ENTRYPOINT ["compress"]
CMD ["--help"]
