# The prepared trees and their patch queues, for the scripts that move changes
# between the two. Sourced after lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this

# Name, which is the upstream's and the tree's; queue; branch; the folder below which
# new files of ours stand at their path, or "-" if they stand in the patches.
queues='
qemu       patches/qemu       gmem       .
linux-7.3  companion/linux    companion  -
libvirt    companion/libvirt  gmem       companion/libvirt/files
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

# How libvirt is configured: neither a service of this machine nor a web page is made from
# here. For tests: the driver for QEMU alone, which is compiled in half of the time.
libvirt_options=(
    --prefix=/usr --sysconfdir=/etc --localstatedir=/var -Drunstatedir=/run
    --buildtype=debugoptimized -Dno_git=true -Dinit_script=none -Dpolkit=disabled
    -Dudev=disabled -Ddocs=disabled -Dtests=enabled
)
libvirt_small=(
    --auto-features=disabled -Ddriver_qemu=enabled -Ddriver_libvirtd=enabled
    -Ddriver_remote=enabled -Djson_c=enabled -Dlibnl=enabled -Dnumactl=enabled
    -Dreadline=enabled -Doptimization=0 -Ddebug=false
)
libvirt_programs=(
    src/libvirt_driver_qemu.so src/virtqemud src/libvirt_iohelper src/virt-qemu-run tools/virsh
)
# Its test programs that know guest_memfd
libvirt_tests=(
    qemuxmlconftest qemucapabilitiestest qemucaps2xmltest domaincapstest qemuhotplugtest
    qemufirmwaretest genericxml2xmltest virschematest
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

# configure NAME OUT FINISH COMMAND...: have COMMAND configure NAME in the directory
# OUT, made anew, and then run FINISH; unless that has been done with this command and
# this upstream: else ninja sees for itself what has changed in meson's files.
configure()
{
    local what=$1 out=$2 finish=$3 log=$2.configure.log key
    shift 3

    key=$({ printf '%s\n' "$@"; cat "$TOP/upstream/$what"; } | sha256sum | cut -c1-32)
    if [ "$(cat "$out/.configured" 2>/dev/null)" = "$key" ]; then return; fi
    say "build: configuring $what (log: ${log#"$TOP/"})"
    rm -rf "$out"
    mkdir "$out"
    (cd "$out" && "$@") > "$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "$what was not configured: see ${log#"$TOP/"}, and run 'make deps' if a package is missing"
    }
    "$finish"
    echo "$key" > "$out/.configured"
}

# configure_qemu TREE OUT FINISH OPTION...
configure_qemu()
{
    local from=$1 out=$2 finish=$3
    shift 3
    configure qemu "$out" "$finish" "$(realpath -m --relative-to="$out" "$from")/configure" "$@"
}

# check_out DIR: have "pristine" in DIR, a worktree of the tree's own. It is moved there
# rather than made anew: only what differs is then compiled.
check_out()
{
    git -C "$1" rev-parse -q --verify 'pristine^{commit}' >/dev/null 2>&1 || rm -rf "$1"
    git -C "$tree" worktree prune
    if [ -d "$1" ]; then
        git -C "$1" am --abort 2>/dev/null || true
        stamp_git -C "$1" checkout -q -f --detach pristine
    else
        stamp_git -C "$tree" worktree add -q --detach "$1" pristine
    fi
}

# link_list LIST FROM TO: links in the folder TO to the files below FROM that LIST names
link_list()
{
    local f
    while read -r f; do
        [ "$3/$f" -ef "$2/$f" ] && continue
        mkdir -p "$(dirname "$3/$f")"
        ln -srfT "$2/$f" "$3/$f"
    done < "$1"
}

# Is all of tree $1 (commits and edits) what we made, that is commit $2?
untouched()
{
    [ "$(git -C "$1" rev-parse HEAD)" = "$2" ] &&
        [ -z "$(git -C "$1" status --porcelain)" ]
}
