# The prepared tree and the patch queue, for the scripts that move changes
# between the two. Sourced after lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this

tree=$BUILD/src/qemu
am=$BUILD/src/qemu-am
rel=build/src/qemu
queue=$TOP/patches/qemu

# The same commits on each machine: fixed dates and a fixed committer.
stamp_git()
{
    GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
        git -c user.name=qemu-gmem -c user.email=qemu-gmem@localhost \
            -c core.autocrlf=false -c commit.gpgsign=false -c core.hooksPath=/dev/null \
            -c gc.auto=0 -c advice.detachedHead=false "$@"
}

series()
{
    [ ! -f "$queue/series" ] || sed -e 's/[ \t]*#.*//' -e '/^[ \t]*$/d' "$queue/series"
}

queue_key()
{
    local p
    { series; series | while read -r p; do cat "$queue/$p" 2>/dev/null || true; done; } |
        sha256sum | cut -c1-32
}

# Is all of tree $1 (commits and edits) what we made, that is commit $2?
untouched()
{
    [ "$(git -C "$1" rev-parse HEAD)" = "$2" ] &&
        [ -z "$(git -C "$1" status --porcelain)" ]
}
