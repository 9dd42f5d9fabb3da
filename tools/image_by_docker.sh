# shellcheck shell=bash
# The image by Docker: what tools/image_check.sh asks of whoever builds and runs it. The container shares this machine's network.

build() { docker build --tag "$IMAGE" .; }

inside() { docker run --rm --entrypoint "$1" "$IMAGE" "${@:2}"; }

start() { container=$(docker run --detach --network host "${@/#/--env=}" "$IMAGE"); }

healthy() { # as Docker itself finds it, a little after the start
    for ((seconds = 0; seconds < READY_S; seconds++)); do
        if [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; then return; fi
        sleep 1
    done
    return 1
}

stop() {
    if [ -n "${container:-}" ]; then
        # shellcheck disable=SC2154  # log is the caller's
        docker logs "$container" >"$log" 2>&1
        docker rm --force "$container" >/dev/null
    fi
}

remove() { docker image rm --force "$IMAGE" >/dev/null; }
