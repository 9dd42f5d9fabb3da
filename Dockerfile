# The client alone: programs, HTTP and command line. The engine is another container (compose.yaml), or any address that GEMMA3N_RUNTIME_URL names.
FROM python:3.11-slim AS build

WORKDIR /src
RUN python -m venv --without-pip /opt/gemma3n
COPY requirements.lock ./
RUN pip --python /opt/gemma3n/bin/python install --no-cache-dir --require-hashes -r requirements.lock
COPY . ./
RUN pip --python /opt/gemma3n/bin/python install --no-cache-dir --no-deps .


FROM python:3.11-slim

LABEL org.opencontainers.image.title="gemma3n-sgl" \
      org.opencontainers.image.description="SGLang programs for Gemma 3n, served as OpenAI models" \
      org.opencontainers.image.licenses="Apache-2.0"

# What serves needs no installer; whoever breaks in shall find none.
RUN python -m pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gemma3n
COPY --from=build /opt/gemma3n /opt/gemma3n

ENV PATH=/opt/gemma3n/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GEMMA3N_HOST=0.0.0.0 \
    GEMMA3N_PORT=8000
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000

HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection as To; c = To('127.0.0.1', int(os.environ['GEMMA3N_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["gemma3n"]
CMD ["serve"]
