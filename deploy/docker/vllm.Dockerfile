# The official vLLM server with the capture plugin installed; without "subtext" in
# --additional-config it is the official server.
# Build from the repository's root: docker build -f deploy/docker/vllm.Dockerfile .
ARG BASE_DIGEST=
FROM vllm/vllm-openai:v0.32.0${BASE_DIGEST}

# --no-deps: the plugin needs only what vLLM brings, at vLLM's versions.
COPY sidecar /opt/subtext-sidecar
RUN pip install --no-deps /opt/subtext-sidecar

# The socket's directory is shared with the sidecar's container, which runs as the same user.
RUN useradd --system --create-home --uid 10001 subtext \
 && install -d -o 10001 -g 10001 /run/subtext /cache
USER 10001
ENTRYPOINT ["vllm", "serve"]
