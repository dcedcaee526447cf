# syntax=docker/dockerfile:1
# The service on an NVIDIA GPU: every model, by PyTorch, whose wheels bring CUDA. The host needs the
# driver and NVIDIA's container toolkit.
#
#     docker build -f packaging/docker/cuda.Dockerfile -t srcli-serve-cuda .
#     docker run --rm --gpus all --read-only --tmpfs /tmp:exec -p 127.0.0.1:8000:8000 -e SRCLI_TOKEN \
#         srcli-serve-cuda

FROM python:3.12-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m pip install --no-cache-dir "build>=1.2" "packaging>=24.0" "setuptools>=77" "tomli-w>=1.0" \
    && SRCLI_REQUIRE_NATIVE=1 python packaging/distributions.py /wheels
RUN python -m venv /opt/srcli \
    && /opt/srcli/bin/pip install --no-cache-dir --find-links /wheels \
        "$(ls /wheels/srcli_lite-*.whl)[serve]" "$(ls /wheels/srcli-*.whl)"

# With a compiler: Triton builds the launcher of each of our kernels when it is first used.
FROM python:3.12-bookworm
COPY --from=build /opt/srcli /opt/srcli
ENV PATH=/opt/srcli/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_VISIBLE_DEVICES=all \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SRCLI_CACHE=/tmp/srcli \
    TRITON_CACHE_DIR=/tmp/triton
# Nobody in particular: it owns nothing, and writes only to /tmp.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["srcli", "serve", "--host", "0.0.0.0", "--port", "8000", "--log-json", "--backend", "torch"]
