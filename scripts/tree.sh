# The prepared trees and their patch queues, for the scripts that move changes
# between the two. Sourced after lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are for those who source this

# Name, which is the upstream's and the tree's; queue; branch; the folder below which
# new files of ours stand at their path, or "-" if they stand in the patches; how many MiB
# the tree takes, generously.
queues='
qemu       patches/qemu       gmem       .                        1200
linux-7.3  companion/linux    companion  -                        4000
libvirt    companion/libvirt  gmem       companion/libvirt/files  1200
'

# How QEMU is configured. No firmware of our own: Debian's packages have it.
firmware=(/usr/share/qemu /usr/share/seabios /usr/share/OVMF /usr/lib/ipxe/qemu)
qemu_options=(
    --prefix="${PREFIX:-/usr/local}"
    # Debian's: another python first in PATH need not have meson.
    --python=/usr/bin/python3
    --target-list=x86_64-softmmu
    # What is wanted is named: the result depends on no package that happens to be there.
    --without-default-features
    --enable-kvm --enable-tcg --enable-system --enable-tools
    --enable-numa --enable-slirp --enable-attr --enable-cap-ng --enable-virtfs
    --enable-vhost-kernel --enable-vhost-net
    --enable-vhost-user --enable-vhost-user-blk-server
    --enable-membarrier --enable-pixman
    --enable-seccomp --enable-linux-aio --enable-linux-io-uring
    --enable-replication
    --enable-fdt=system
    --disable-install-blobs --disable-download
    --firmwarepath="$(IFS=:; echo "${firmware[*]}")"
)
# In the lab and for the tests: quick to compile
qemu_small=(--disable-docs --disable-debug-info)
# For the Arm lab, with the libraries of scripts/sysroot. -O1 takes half of the time, but
# sees less of what is initialized.
qemu_aarch64=(
    --target-list=aarch64-softmmu --cross-prefix=aarch64-linux-gnu- --disable-tcg
    --extra-cflags='-O1 -Wno-maybe-uninitialized'
)
# For people who run it: what Debian's qemu-system-x86 has, as far as Debian 12's libraries
# go (libigvm is not there, libxdp is too old), but for what serves Xen. What needs many
# libraries is in modules, so a machine that lacks them can run the rest.
qemu_full=(
    --enable-docs --enable-modules --enable-stack-protector --enable-malloc-trim
    # Monitors, encryption, keys
    --enable-gnutls --enable-nettle --enable-keyring --enable-libkeyutils
    --enable-selinux --enable-gio --enable-iconv --enable-tpm
    # Displays and sound
    --enable-vnc --enable-vnc-jpeg --enable-vnc-sasl --enable-png
    --enable-spice --enable-spice-protocol --enable-dbus-display
    --enable-gtk --enable-vte --enable-sdl --enable-curses --enable-brlapi
    --enable-opengl --enable-virglrenderer
    --enable-alsa --enable-jack --enable-oss --enable-pa --enable-pipewire
    '--audio-drv-list=pipewire,pa,alsa,jack,oss,sdl'
    # USB
    --enable-libusb --enable-usb-redir --enable-smartcard --enable-libudev
    # Disks and their formats
    --enable-curl --enable-libssh --enable-libiscsi --enable-libnfs --enable-rbd
    --enable-glusterfs --enable-blkio --enable-fuse --enable-fuse-lseek
    --enable-libvduse --enable-vduse-blk-export --enable-zstd --enable-bzip2
    --enable-bochs --enable-cloop --enable-dmg --enable-parallels --enable-qcow1
    --enable-qed --enable-vdi --enable-vhdx --enable-vmdk --enable-vpc --enable-vvfat
    # Network, vhost, memory
    --enable-l2tpv3 --enable-vde --enable-passt --enable-bpf --enable-colo-proxy
    --enable-vhost-vdpa --enable-vhost-crypto --enable-rdma --enable-multiprocess
    --enable-libpmem --enable-libdaxctl --enable-hv-balloon
    --enable-capstone --enable-plugins
)

# How libvirt is configured: neither a service of this machine nor a web page is made from
# here. For tests: the driver for QEMU alone, which is compiled in half of the time.
libvirt_options=(
    --buildtype=debugoptimized -Dno_git=true -Dinit_script=none -Dpolkit=disabled
    -Dudev=disabled -Ddocs=disabled
)
libvirt_tested=(
    --prefix=/usr --sysconfdir=/etc --localstatedir=/var -Drunstatedir=/run -Dtests=enabled
)
# For the package: all that a host of QEMU's guests needs, and every file in a directory of
# its own, so that Debian's libvirt can be there and run as well.
libvirt_package=(
    --prefix=/usr/lib/libvirt-gmem --sysconfdir=/etc/libvirt-gmem
    --localstatedir=/var/lib/libvirt-gmem -Drunstatedir=/run/libvirt-gmem
    -Dqemu_moddir=/usr/lib/qemu-gmem/lib/x86_64-linux-gnu/qemu
    -Dqemu_datadir=/usr/lib/qemu-gmem/share/qemu -Dqemu_user=libvirt-qemu -Dqemu_group=kvm
    -Dremote_default_mode=legacy
    --buildtype=release -Dtests=disabled --auto-features=disabled
    -Ddriver_qemu=enabled -Ddriver_libvirtd=enabled -Ddriver_remote=enabled
    -Ddriver_network=enabled -Ddriver_secrets=enabled -Dstorage_dir=enabled
    -Dstorage_fs=enabled -Dhost_validate=enabled
    -Djson_c=enabled -Dlibnl=enabled -Dnumactl=enabled -Dreadline=enabled -Dcapng=enabled
    -Dattr=enabled
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
    read -r name queue_rel branch new_files unpacked <<<"$(awk -v name="$1" '$1 == name' <<<"$queues")"
    found=$(awk 'NF { printf "%s ", $1 }' <<<"$queues")
    [ -n "$name" ] || die "there is no queue $1; there are: $found"
    rel=build/src/$name
    tree=$BUILD/src/$name
    am=$tree-am
    queue=$TOP/$queue_rel
    state=$tree/.git/gmem
}

# package_version UPSTREAM: that of our package of it, which counts our commits: a later
# package is an upgrade
package_version()
{
    local count
    count=$(git -C "$TOP" rev-list --count HEAD 2>/dev/null) ||
        die "the packages' version counts the commits of this repository, and $TOP is not in git"
    echo "$1+gmem$count"
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
    need_room "$(dirname "$out")" 600 "building $what"
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

# check_out DIR [COMMIT]: have COMMIT, or "pristine", in DIR, a worktree of the tree's own. It
# is moved there rather than made anew: only what differs is then compiled.
check_out()
{
    local commit=${2:-pristine}
    git -C "$1" rev-parse -q --verify 'pristine^{commit}' >/dev/null 2>&1 || rm -rf "$1"
    git -C "$tree" worktree prune
    if [ -d "$1" ]; then
        git -C "$1" am --abort 2>/dev/null || true
        stamp_git -C "$1" checkout -q -f --detach "$commit"
    else
        stamp_git -C "$tree" worktree add -q --detach "$1" "$commit"
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
