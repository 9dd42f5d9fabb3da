#!/usr/bin/env bash
# Make the client's environment: venv.sh DIR [PYTHON]. One that is whole is left as it is; any other is made anew.
set -euo pipefail

readonly venv=$1
read -ra pythons <<<"${2:-python3.11 python3.12 python3}"

serves() { # a Python that runs (a pyenv shim may exist and fail), of a version that will do, able to make environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null
}

what_is() { # one line for the message
    local version
    version=$("$1" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null) || { echo "not found, or does not run" && return; }
    "$1" -c 'import venv, ensurepip' 2>/dev/null || version+=", but can't make environments (Debian, Ubuntu: apt install python3-venv)"
    echo "$version"
}

whole() { # with pip, and of the version that is asked for, if one is
    serves "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
        { [ -z "${2:-}" ] || [ "$(what_is "$2")" = "$(what_is "$venv/bin/python")" ]; }
}

if whole "$@"; then exit; fi

for python in "${pythons[@]}"; do
    if serves "$python"; then exec "$python" -m venv --clear "$venv"; fi
done

{
    echo "Python 3.11 or 3.12 is needed. Tried:"
    for python in "${pythons[@]}"; do echo "  $python: $(what_is "$python")"; done
    echo "Get one (Debian 12, Ubuntu 24.04: apt install python3 python3-venv; macOS: brew install python@3.12;"
    echo "anywhere: uv python install 3.12), or name the one you have: make PYTHON=/path/to/python3.12 …"
} >&2
exit 1
