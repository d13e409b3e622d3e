# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What tools/demo and tools/test share: words for people, and one build. Sourced, not run.

me=$(basename "$0")

step() { echo "$me: $*"; }

fail() { # fail WHY MEND
    echo "$me: $1" >&2
    echo "  $2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "root is needed" "run it with sudo"
}

# Quiet unless it fails; then the end of its log, and where the rest is.
build_preset() { # build_preset PRESET
    local log=build/$1.log
    step "build $1"
    mkdir -p build
    if ! { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "the $1 build failed" "the whole log: $log"
    fi
}
