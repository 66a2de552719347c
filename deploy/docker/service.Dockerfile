# The service, the migrations and the sidecar's shipper: one image without torch or vLLM.
# Build from the repository's root: docker build -f deploy/docker/service.Dockerfile .
ARG BASE_DIGEST=
FROM python:3.11.14-slim-bookworm${BASE_DIGEST}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

COPY requirements/service.txt requirements/service.txt
RUN pip install --no-deps -r requirements/service.txt

COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
COPY migrations migrations
COPY deploy deploy
COPY sidecar sidecar
RUN pip install --no-deps --no-build-isolation ./sidecar .

# The socket's directory is shared with vLLM's container; both images make it with the same owner. A new volume takes
# the owner of what it is mounted on.
RUN useradd --system --uid 10001 subtext && install -d -o 10001 -g 10001 /run/subtext \
    && install -d -o 10001 -g 10001 -m 0755 /checkpoints && install -d -o 10001 -g 10001 -m 0700 /exports
USER 10001
ENTRYPOINT ["subtext"]
