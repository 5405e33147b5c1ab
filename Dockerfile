# simexm in a container, and the base of an Apptainer image:
#   docker build --tag simexm .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" simexm run spec.yaml
#   apptainer build simexm.sif docker-daemon://simexm:latest
# On a machine with NVIDIA GPUs: docker build --build-arg EXTRAS=gpu,view,io,s3,align ., and docker run --gpus all.
FROM python:3.12-slim AS build
ARG EXTRAS=view,io,s3,align
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY simexm simexm
COPY pipelines pipelines
RUN python -m venv /opt/simexm && /opt/simexm/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.12-slim
COPY --from=build /opt/simexm /opt/simexm
# Any user may run it, so compiled code goes where each of them can write; name a folder of yours to keep it between containers.
ENV PATH=/opt/simexm/bin:$PATH \
    NUMBA_CACHE_DIR=/tmp/simexm-compiled \
    MPLCONFIGDIR=/tmp/simexm-matplotlib \
    PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["simexm"]
CMD ["--help"]
