# shellcheck shell=bash
# The image by buildah, as root and without a daemon: what tools/image_check.sh asks of whoever builds and runs it.
# The base that FROM names is put together once from Debian's packages, with Python and pip where the official image has them, and kept.

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gemma3n-image
base=docker.io/library/$(awk '/^FROM/ {image = $2} END {print image}' Dockerfile)

buildah=(buildah --root "$cache/storage" --runroot "$cache/run")

configured() { # configured FIELD: a list in the image's configuration, one item a line
    "${buildah[@]}" inspect --type image --format "{{range .Docker.Config.$1}}{{println .}}{{end}}" "$IMAGE"
}

make_base() {
    local rootfs=$cache/rootfs new
    rm -rf "$rootfs"
    # With Debian's own address where apt has none for this release.
    # shellcheck disable=SC2046
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$rootfs" \
        $(apt-get indextargets --format "\$(CODENAME) \$(SITE)" | awk '$1 == "bookworm" {site = $2} END {print site}')
    chroot "$rootfs" python3 -m venv /usr/local
    new=$("${buildah[@]}" from scratch)
    "${buildah[@]}" add --quiet "$new" "$rootfs" /
    "${buildah[@]}" config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$new"
    "${buildah[@]}" commit --quiet --rm "$new" "$base"
    rm -rf "$rootfs"
}

build() {
    "${buildah[@]}" bud --pull-never --net host --format docker --volume /etc/ssl/certs:/etc/ssl/certs:ro --tag "$IMAGE" .
    container=$("${buildah[@]}" from --pull-never "$IMAGE")
}

inside() { "${buildah[@]}" run --net host --env "GEMMA3N_PORT=${port:-8000}" "$container" -- "$@"; }

start() { # the image's own command, in the background
    local command
    mapfile -t command < <(configured Entrypoint && configured Cmd)
    # shellcheck disable=SC2154  # log is the caller's
    "${buildah[@]}" run --net host "${@/#/--env=}" "$container" -- "${command[@]}" >"$log" 2>&1 &
    server=$!
}

healthy() {
    local test
    mapfile -t test < <(configured Healthcheck.Test)
    inside "${test[@]:1}"
}

stop() {
    if [ -n "${server:-}" ]; then kill "$server" && wait "$server"; fi 2>/dev/null
}

remove() {
    "${buildah[@]}" rm --all >/dev/null # what an interrupted build left, too
    "${buildah[@]}" rmi "$IMAGE" >/dev/null 2>&1
}

((UID == 0)) || fail "without a Docker daemon it takes buildah, and that takes root"
if ! { command -v buildah && command -v debootstrap; } >/dev/null; then
    say "tools" "buildah and debootstrap are installed by apt-get"
    { apt-get update && apt-get install --yes buildah debootstrap; } >"$log" 2>&1 || fail "they can't be installed: $log"
fi
if ! "${buildah[@]}" inspect --type image "$base" >/dev/null 2>&1; then
    say "base" "is put together from Debian's packages, once (about 2 min)"
    make_base >"$log" 2>&1 || fail "it can't be put together: $log"
fi
