# Two stages: wheels are built where the tools are, the final image has none of them.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements/runtime.txt requirements/build.txt requirements/
RUN python -m venv /opt/flexway \
 && /opt/flexway/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt \
 && python -m pip install --no-cache-dir --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY marketplace_core marketplace_core
COPY adapters adapters
COPY gateway gateway
COPY config config
COPY firmware_sim firmware_sim
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/flexway/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 flexway \
 && useradd --system --uid 10001 --gid flexway --home-dir /var/lib/flexway --create-home flexway \
 && install -d -o flexway -g flexway -m 0700 /var/lib/flexway /var/lib/flexway-roots
COPY --from=build /opt/flexway /opt/flexway
ENV PATH=/opt/flexway/bin:$PATH PYTHONUNBUFFERED=1
USER flexway
WORKDIR /var/lib/flexway
VOLUME ["/var/lib/flexway", "/var/lib/flexway-roots"]
EXPOSE 8443
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-m", "gateway.observability.probe", "https://127.0.0.1:8443/healthz"]
ENTRYPOINT ["flexway"]
CMD ["serve", "--config", "/etc/flexway/flexway.toml"]
