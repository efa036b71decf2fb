# Shared by every shell script of the project: where things are, how to talk,
# and how to put something into the cache so that only whole things are in it.
# Source it first: it sets bash's strict mode.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=$TOP/build
CACHE=${XDG_CACHE_HOME:-${HOME:?is not set, and neither is XDG_CACHE_HOME}/.cache}/qemu-gmem

# Progress goes to stderr: stdout is for results, such as a directory's name.
say() { printf '%s\n' "$*" >&2; }

die() { printf '%s: error: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_room DIR MIB WHAT: end with a message if DIR's file system has not that much room,
# which WHAT takes there: better now than with a compiler's error in the middle.
need_room()
{
    local free
    free=$(df --output=avail --block-size=1M "$1" | tail -n 1)
    [ "$free" -ge "$2" ] || die "$3 takes $2 MiB of room in $1, and there are only" \
        "$((free)) MiB: make room, or have the checkout (and XDG_CACHE_HOME) elsewhere"
}

# cache_key FILE...: one key for the contents of all the files, in order.
cache_key()
{
    sha256sum -- "$@" | cut -d' ' -f1 | sha256sum | cut -c1-32
}

# hold_lock FILE: wait for the lock on FILE, and hold it until this process and all
# that it has started have ended.
hold_lock()
{
    local lock
    exec {lock}>"$1"
    flock "$lock"
}

# cache_build DIR CMD [ARG...]: make the directory DIR, unless it is there, by
# running "CMD ARG... TMP", which fills the empty directory TMP. DIR appears
# only when CMD has succeeded; a second caller waits for the first. Not to be
# called in a condition (if, ||, &&): bash would then ignore failures in CMD.
cache_build()
{
    local dir=$1 lock
    shift

    [ ! -d "$dir" ] || return 0
    mkdir -p "$(dirname "$dir")"
    exec {lock}>"$dir.lock"
    flock "$lock"
    if [ ! -d "$dir" ]; then
        rm -rf "$dir.tmp"
        mkdir "$dir.tmp"
        "$@" "$dir.tmp"
        mv -T "$dir.tmp" "$dir"
    fi
    exec {lock}>&-
}
