# Pellucid in a container: `docker build --target cpu .` or `--target cuda`.
#
# Wheels of torch without CUDA come from an index of their own; without one, the cpu target works but is larger:
#   docker build --target cpu --build-arg PIP_EXTRA_INDEX_URL=<index of CPU wheels> .
# Behind a proxy or mirror, PIP_INDEX_URL does the same for everything else.

FROM python:3.11-slim-bookworm AS build
ENV PATH=/opt/pellucid/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/pellucid
COPY . .

FROM build AS build-cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# torch alone and first: a plain resolution would bring several GB of CUDA libraries.
RUN pip install --constraint constraints.txt torch==2.13.0 \
    && pip install --constraint constraints.txt '.[cpu,postgresql,s3,tracing]' \
    && find /opt/pellucid -name '__pycache__' -prune -exec rm -r {} +

FROM build AS build-cuda
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# The constraints pin the CPU build of torch; everything else is the same.
RUN grep -vE '^(torch|onnxruntime)==' constraints.txt > cuda.txt \
    && pip install --constraint cuda.txt '.[gpu,postgresql,s3,tracing]' \
    && find /opt/pellucid -name '__pycache__' -prune -exec rm -r {} +

FROM python:3.11-slim-bookworm AS base
LABEL org.opencontainers.image.title="Pellucid" \
      org.opencontainers.image.description="Explainable AI results in the PACS a hospital already has. Research use; not for primary diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/operations.md"
RUN groupadd --gid 10001 pellucid \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pellucid \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/pellucid
ENV PATH=/opt/pellucid/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PELLUCID__STATE__DIRECTORY=/var/lib/pellucid \
    PELLUCID__LISTENER__HOST=0.0.0.0 \
    PELLUCID__HTTP__LISTENER_PORT=9464 \
    PELLUCID__HTTP__WORKER_PORT=9465 \
    PELLUCID__HTTP__SENDER_PORT=9466 \
    PELLUCID__LOG__FORMAT=json
# The root may be read-only: only the state folder and /tmp are written.
VOLUME /var/lib/pellucid
WORKDIR /var/lib/pellucid
# 9464 to 9466, health and metrics, stay on the container's loopback unless PELLUCID__HTTP__HOST is 0.0.0.0: they ask
# for no password.
EXPOSE 11112 2762 9464 9465 9466
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 CMD ["pellucid", "health"]
ENTRYPOINT ["pellucid"]
CMD ["serve"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/pellucid /opt/pellucid

FROM base AS cpu
COPY --from=build-cpu /opt/pellucid /opt/pellucid
