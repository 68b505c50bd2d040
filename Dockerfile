# The image of the proxy, with the extras for Valkey and object stores:
#
#   docker build -t openai-dify-proxy .
#   docker run --rm --read-only --tmpfs /tmp -v proxy-data:/data -p 127.0.0.1:8223:8223 --env-file .env openai-dify-proxy
#
# scripts/image-check runs all steps in a clean Debian and serves from the result. No container engine has built it yet.

FROM python:3.13-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock README.md CHANGELOG.md LICENSE ./
COPY demo ./demo
RUN uv sync --frozen --no-dev --no-install-workspace --extra redis --extra s3
COPY src ./src
RUN uv sync --frozen --no-dev --no-editable --extra redis --extra s3

FROM python:3.13-slim-bookworm
# Nothing in the image can install or build anything.
RUN pip uninstall --yes --quiet pip \
    && groupadd --gid 10001 dify-proxy \
    && useradd --uid 10001 --gid dify-proxy --no-create-home --home-dir /data --shell /usr/sbin/nologin dify-proxy \
    && install --directory --owner dify-proxy --group dify-proxy --mode 0700 /data
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8223 \
    LOG_FORMAT=json \
    XDG_DATA_HOME=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8223
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=4)"]
ENTRYPOINT ["openai-dify-proxy"]
CMD ["serve"]
