# The prepared trees and their patch queues, for the scripts that move changes
# between the two. Sourced after lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this

# Name, which is the upstream's and the tree's; queue; branch; where new files
# of ours stand: at their path in this repository, or in the patches.
queues='
qemu       patches/qemu     gmem       beside
linux-7.3  companion/linux  companion  inside
'

# How QEMU is configured. No firmware of our own: Debian's packages have it.
firmware=(/usr/share/qemu /usr/share/seabios /usr/share/OVMF /usr/lib/ipxe/qemu)
qemu_options=(
    --prefix="${PREFIX:-/usr/local}"
    # Debian's: another python first in PATH need not have meson.
    --python=/usr/bin/python3
    --target-list=x86_64-softmmu
    --without-default-features
    --enable-kvm --enable-tcg --enable-system --enable-tools
    --enable-numa --enable-slirp --enable-attr --enable-cap-ng --enable-virtfs
    --enable-vhost-kernel --enable-vhost-net
    --enable-vhost-user --enable-vhost-user-blk-server
    --enable-membarrier --enable-pixman
    --enable-seccomp --enable-linux-aio --enable-linux-io-uring
    --enable-replication
    --enable-fdt=system
    --disable-docs --disable-install-blobs --disable-download
    --firmwarepath="$(IFS=:; echo "${firmware[*]}")"
)

# use_queue NAME: the variables that the functions below work with.
use_queue()
{
    local found
    read -r name queue_rel branch new_files <<<"$(awk -v name="$1" '$1 == name' <<<"$queues")"
    found=$(awk 'NF { printf "%s ", $1 }' <<<"$queues")
    [ -n "$name" ] || die "there is no queue $1; there are: $found"
    rel=build/src/$name
    tree=$BUILD/src/$name
    am=$tree-am
    queue=$TOP/$queue_rel
    state=$tree/.git/gmem
}

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

# Files of the upstream that go whole, when the series has been applied
removed()
{
    [ ! -f "$queue/removed" ] || sed -e 's/[ \t]*#.*//' -e '/^[ \t]*$/d' "$queue/removed"
}

queue_key()
{
    local p
    { series; removed; series | while read -r p; do cat "$queue/$p" 2>/dev/null || true; done; } |
        sha256sum | cut -c1-32
}

# configure_qemu TREE OUT FINISH OPTION...: configure the QEMU in TREE in the
# directory OUT, made anew, and then run FINISH; unless that has been done for
# these options and this QEMU: else ninja sees for itself what has changed in
# meson's files.
configure_qemu()
{
    local from=$1 out=$2 finish=$3 log=$2.configure.log key
    shift 3

    key=$({ printf '%s\n' "$@"; cat "$TOP/upstream/qemu"; } | sha256sum | cut -c1-32)
    if [ "$(cat "$out/.configured" 2>/dev/null)" = "$key" ]; then return; fi
    say "build: configuring QEMU (log: ${log#"$TOP/"})"
    rm -rf "$out"
    mkdir "$out"
    (cd "$out" && "$(realpath --relative-to=. "$from")/configure" "$@") > "$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "QEMU's configure failed: see ${log#"$TOP/"}, and run 'make deps' if a package is missing"
    }
    "$finish"
    echo "$key" > "$out/.configured"
}

# Is all of tree $1 (commits and edits) what we made, that is commit $2?
untouched()
{
    [ "$(git -C "$1" rev-parse HEAD)" = "$2" ] &&
        [ -z "$(git -C "$1" status --porcelain)" ]
}
