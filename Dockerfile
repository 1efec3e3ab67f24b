# Simulates on any machine:   docker build -t memory-harness . && docker run --rm -v "$PWD":/work memory-harness --help
# Measures and trains on a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t memory-harness .
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple torch \
    && pip install --no-cache-dir --constraint constraints.txt . \
    && rm -rf /source
WORKDIR /work
ENTRYPOINT ["run-probe"]
