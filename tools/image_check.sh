#!/usr/bin/env bash
# Lint, build and run the image for real, and put two questions to it. An engine named by GEMMA3N_RUNTIME_URL is asked, else one is started.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly IMAGE=gemma3n-sgl:check LIMIT_MB=400 READY_S=30 GEMMA3N=.venv/bin/gemma3n log=build/image-check.log
mkdir -p build

say() { printf '%-12s%s\n' "$1" "$2"; }
fail() { echo "image-check: $*" >&2 && exit 1; }
free_port() { .venv/bin/python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
at() { curl -sS --noproxy '*' --max-time 120 --fail-with-body "http://127.0.0.1:$port$1" "${@:2}"; }

ask() { # ask CONTENT: the answer
    printf '{"model": "gemma-3n", "messages": [{"role": "user", "content": %s}]}' "$1" | at /v1/chat/completions --json @- |
        .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])'
}

show() { # show NAME COMMAND…: what it prints; the check ends where it fails
    local seen
    seen=$("${@:2}") || fail "$1 fails: $seen"
    say "$1" "$seen"
}

clean_up() {
    set +e
    stop
    remove
    if [ -n "${engine_port:-}" ]; then $GEMMA3N engine stop --port "$engine_port"; fi
}

wait_until_ready() {
    for ((tenths = 0; tenths < READY_S * 10; tenths++)); do
        if at /livez >/dev/null 2>&1; then say "ready" "in $((tenths / 10)).$((tenths % 10)) s" && return; fi
        sleep 0.1
    done
    cat "$log" >&2 && fail "the container does not answer on /livez within $READY_S s"
}

if docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then by=docker; else by=buildah; fi
# shellcheck source=tools/image_by_docker.sh
source "tools/image_by_$by.sh"
trap clean_up EXIT

.venv/bin/hadolint Dockerfile
say "lint" "hadolint finds nothing"
build >"$log" 2>&1 || { tail -n 40 "$log" >&2 && fail "the image can't be built"; }
say "built" "by $by"

size=$(inside du -sm /opt/gemma3n | cut -f1)
((size <= LIMIT_MB)) || fail "the packages take $size MB, more than $LIMIT_MB"
say "packages" "$size MB (at most $LIMIT_MB)"
uid=$(inside id -u)
((uid > 0)) || fail "it runs as root"
say "user" "$uid"
if inside python -c 'import pip' >/dev/null 2>&1; then fail "it holds pip"; fi
say "pip" "none"

engine=${GEMMA3N_RUNTIME_URL:-}
if [ -z "$engine" ]; then
    engine_port=$(free_port)
    $GEMMA3N engine start --port "$engine_port"
    engine=http://127.0.0.1:$engine_port
fi
port=$(free_port)
start "GEMMA3N_HOST=127.0.0.1" "GEMMA3N_PORT=$port" "GEMMA3N_RUNTIME_URL=$engine"
wait_until_ready
healthy || fail "its health check fails"
say "healthcheck" "passes"
show "/livez" at /livez
show "/health" at /health
show "text" ask '"Hello!"'
picture=$(base64 <tests/media/red-circle.png | tr -d '\n')
show "picture" ask '[{"type": "text", "text": "Describe the image."}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,'"$picture"'"}}]'
say "image-check" "passed"
