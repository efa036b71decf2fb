#!/bin/sh
# Does QEMU run SEV-SNP or TDX guests here? One verdict a line.
#
#   sh guest-memfd-hosts.sh snp|tdx FIRMWARE [OPTION OF QEMU...]
#
# QEMU, TIME (seconds for the firmware, at most), CBITPOS (of SEV-SNP) and DEVICE (for VFIO, by its
# PCI address) come from the environment.
kind=$1 firmware=$2; shift 2
case $kind in
snp) guest=sev-snp-guest,cbitpos=${CBITPOS:-51},reduced-phys-bits=1${SEV_DEVICE:+,sev-device=$SEV_DEVICE} ;;
tdx) guest=tdx-guest machine=,kernel-irqchip=split ;;
esac
dir=$(mktemp -d) failed=0
verdict() { if eval "$2"; then echo "ok: $1"; else echo "not ok: $1"; failed=1; fi; }
boot()
{
    (for _ in $(seq "${TIME:-20}"); do
         sleep 1; echo info guest-memfd; grep -q ', [1-9][0-9]* to shared' "$dir/log" && break
     done; cat "/proc/$(cat "$dir/pid")/status" > "$dir/status"
     printf '%s\n' 'info status' 'info guest-memfd' system_reset; sleep 2; echo quit) |
    "${QEMU:-qemu-system-x86_64}" -accel kvm -cpu host -m 1G -nodefaults -display none \
        -machine "q35,confidential-guest-support=cgs0,memory-backend=ram0$machine" \
        -object "$guest,id=cgs0" -object memory-backend-guest-memfd,id=ram0,size=1G \
        -bios "$firmware" -pidfile "$dir/pid" -monitor stdio "$@" > "$dir/log" 2>&1
    anon=$(awk '/^RssAnon/ { print int($2 / 1024) }' "$dir/status")
    locked=$(awk '/^Vm(Lck|Pin)/ { n += $2 } END { print int(n / 1024) }' "$dir/status")
    shared=$(sed -n 's/.* conversions: .*, \([0-9]*\) to shared .*/\1/p' "$dir/log" | tail -n 1)
}
boot "$@"
mode=$(sed -n 's/.*ram0: \(in-place\|split\),.*/\1/p' "$dir/log" | tail -n 1)
verdict "a guest runs, $mode" "grep -q 'VM status: running' '$dir/log'"
verdict "it has made memory shared: ${shared:-0} requests" "[ ${shared:-0} -gt 0 ]"
verdict "QEMU has $anon MiB of its own beside 1024 MiB of the guest" "[ ${anon:-1024} -lt 256 ]"
verdict "a reset ends it" "grep -q 'not resettable' '$dir/log'"
if [ "$DEVICE" ]; then
    boot -object iommufd,id=iommufd0 -device "vfio-pci,host=$DEVICE,iommufd=iommufd0" "$@"
    verdict "a guest runs with $DEVICE" "grep -q 'VM status: running' '$dir/log'"
    verdict "$locked MiB are pinned, not all" "[ ${locked:-1024} -lt 512 ]"
fi
[ $failed = 0 ] || sed 's/^/# /' "$dir/log"
rm -r "$dir"
exit $failed
