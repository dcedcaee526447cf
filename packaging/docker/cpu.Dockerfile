# syntax=docker/dockerfile:1
# The service on CPUs, small: LAPAR and AWSRN, without PyTorch.
#
#     docker build -f packaging/docker/cpu.Dockerfile -t srcli-serve .
#     docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -e SRCLI_TOKEN srcli-serve

FROM python:3.12-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m pip install --no-cache-dir "build>=1.2" "packaging>=24.0" "setuptools>=77" "tomli-w>=1.0" \
    && SRCLI_REQUIRE_NATIVE=1 python packaging/distributions.py /wheels
RUN python -m venv /opt/srcli \
    && /opt/srcli/bin/pip install --no-cache-dir "$(ls /wheels/srcli_lite-*.whl)[serve]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/srcli /opt/srcli
ENV PATH=/opt/srcli/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SRCLI_CACHE=/tmp/srcli
# Nobody in particular: it owns nothing, and writes only to /tmp.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["srcli", "serve", "--host", "0.0.0.0", "--port", "8000", "--log-json"]
