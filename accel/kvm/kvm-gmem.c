/*
 * KVM guest_memfd: creating the file, and memory faults of vCPUs
 *
 * kvm-gmem-slots.c binds memory slots to the file; kvm-gmem-attributes.c tells
 * KVM which pages are private.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "system/guest-memfd.h"
#include "system/kvm.h"
#include "system/kvm-gmem.h"
#include "system/kvm_int.h"
#include "kvm-gmem-attributes.h"
#include "kvm-gmem-uapi.h"
#include "trace.h"

int kvm_gmem_create_mmap(uint64_t size, bool shared, OnOffAuto huge_pages,
                         Error **errp)
{
    ERRP_GUARD();
    const uint64_t flags = GUEST_MEMFD_FLAG_MMAP |
                           (shared ? GUEST_MEMFD_FLAG_INIT_SHARED : 0);
    struct kvm_create_guest_memfd args = {
        .size = size,
        .flags = flags,
    };
    int fd, ret;

    /*
     * Check the VM, not /dev/kvm: before Linux 6.18 only VM types with private
     * memory have guest_memfd.
     */
    if (kvm_vm_check_extension(kvm_state, KVM_CAP_USER_MEMORY2) <= 0 ||
        kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD) <= 0) {
        error_setg(errp, "the host's KVM has no guest_memfd for this type of "
                   "VM, which takes Linux 6.18 or newer with guest_memfd "
                   "enabled");
        error_append_hint(errp, "Use memory-backend-memfd here.\n");
        return -1;
    }

    ret = kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD_FLAGS);
    if (ret < 0 || (ret & flags) != flags) {
        error_setg(errp, "the host's KVM cannot map a guest_memfd (it lacks "
                   "GUEST_MEMFD_FLAG_MMAP or GUEST_MEMFD_FLAG_INIT_SHARED), "
                   "which takes Linux 6.18 or newer");
        error_append_hint(errp, "Use memory-backend-memfd here.\n");
        return -1;
    }

    if (huge_pages != ON_OFF_AUTO_OFF && ret & GUEST_MEMFD_FLAG_HUGE_2M) {
        args.flags |= GUEST_MEMFD_FLAG_HUGE_2M;
    } else if (huge_pages == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'huge-pages' is on, but the host's KVM has "
                   "no huge pages for a guest_memfd of this type of VM");
        error_append_hint(errp, "Set huge-pages=auto, or use a host kernel "
                          "with qemu-gmem's patches.\n");
        return -1;
    }

    fd = kvm_vm_ioctl(kvm_state, KVM_CREATE_GUEST_MEMFD, &args);
    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot create a guest_memfd of %" PRIu64
                         " bytes", size);
        return -1;
    }
    qemu_set_cloexec(fd);
    trace_kvm_gmem_create(fd, size, args.flags);
    return fd;
}

/*
 * In a VM whose accesses are no requests, each memory fault is stale: KVM
 * looked up whether the page is private, and that had changed when KVM was
 * about to map the page.  When the vCPU repeats the access and nothing has
 * changed since, the access succeeds.  A vCPU that has the same fault again
 * without a change would have it for ever.
 */
static bool kvm_gmem_fault_is_stale(hwaddr start, uint64_t flags)
{
    static __thread struct {
        hwaddr start;
        uint64_t flags;
        unsigned changes;
        bool valid;
    } last;                     /* the last fault of this vCPU */
    unsigned changes;
    bool same;
    BQL_LOCK_GUARD();

    changes = kvm_gmem_attribute_changes();
    same = last.valid && last.start == start && last.flags == flags &&
           last.changes == changes;
    last.start = start;
    last.flags = flags;
    last.changes = changes;
    last.valid = !same;
    return !same;
}

int kvm_gmem_memory_fault(hwaddr start, uint64_t size, uint64_t flags)
{
    bool to_private = flags & KVM_MEMORY_EXIT_FLAG_PRIVATE;
    int64_t ret;

    if (flags & ~KVM_MEMORY_EXIT_FLAG_PRIVATE) {
        error_report("KVM reports a memory fault at 0x%" HWADDR_PRIx " with "
                     "flags 0x%" PRIx64 ", which QEMU does not know", start,
                     flags);
        return -1;
    }
    if (!guest_memfd_access_is_request() &&
        !kvm_gmem_fault_is_stale(start, flags)) {
        error_report("KVM does not let the guest access 0x%" HWADDR_PRIx
                     " as %s memory, however often it tries", start,
                     to_private ? "private" : "shared");
        return -1;
    }
    ret = guest_memfd_fault(start, size, to_private, current_cpu);
    if (ret == -EINTR || ret == -EAGAIN) {
        /*
         * The vCPU has to stop, or something uses a page for long, and the
         * guest cannot be told: the vCPU repeats the access, which is the same
         * fault again, for as long as that lasts.
         */
        return 0;
    }
    if (ret < 0) {
        error_report("The guest has accessed 0x%" HWADDR_PRIx " as %s memory, "
                     "which it cannot be: %s", start,
                     to_private ? "private" : "shared", strerror(-ret));
        return -1;
    }
    return 0;
}
