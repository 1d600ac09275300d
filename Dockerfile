# One file, two images: `cpu` for every service, `gpu` for workers on NVIDIA devices. The packages come before the
# code, so that a change of code rebuilds the last small layer alone.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --create-home stagebeam \
 && mkdir /models && chown stagebeam /models
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Which build of torch an index serves is its own matter: TORCH_INDEX names the one with the build wanted here.
ARG TORCH_INDEX=""

FROM base AS packages
# The list of packages alone, without our code: this layer lives until pyproject.toml or constraints.txt change.
RUN python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > requirements.txt \
 && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt torch \
 && pip install --constraint constraints.txt --requirement requirements.txt

FROM base AS packages-gpu
# constraints.txt pins a CPU build of torch; this image pins its own.
ARG TORCH_GPU=torch==2.13.0
RUN python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > requirements.txt \
 && grep -v -i '^torch==' constraints.txt > gpu-constraints.txt \
 && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH_GPU" \
 && pip install --constraint gpu-constraints.txt --requirement requirements.txt

FROM packages-gpu AS gpu
COPY . .
RUN pip install --no-deps --editable .
USER stagebeam
ENV STAGEBEAM_DEVICE=cuda
CMD ["stagebeam", "--help"]

FROM packages AS cpu
COPY . .
RUN pip install --no-deps --editable .
USER stagebeam
CMD ["stagebeam", "--help"]
