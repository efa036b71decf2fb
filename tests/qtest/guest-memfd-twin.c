/*
 * Accesses of the wrong kind for software-protected guests, to be preloaded
 * into QEMU
 *
 * An access of an SEV-SNP or TDX guest says whether it means private or shared
 * memory.  KVM with the parameter sw_protected_by_slot takes that from the
 * memory slot: memory that is reached through a slot with a guest_memfd is
 * meant to be private, any other is meant to be shared.
 *
 * This module gives each piece of memory both slots: where QEMU puts it, one
 * that maps it by its host address, and at a distance of TWIN one with the
 * guest_memfd.  So the guest's code is shared memory, and can be emulated.
 * With GUEST_MEMFD_TWIN=shared in the environment it is the other way round,
 * for a guest that is launched in private memory (guest-memfd-launch.c).
 *
 * QEMU knows nothing of the second slot, as it knows nothing of the address bit
 * of SEV-SNP and TDX: the module takes the distance out of memory faults.
 *
 * This needs memory that is converted in place and that is not logged.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/* Below the end of any processor's addresses, above any guest's memory */
#define TWIN        (UINT64_C(1) << 39)
/* More than QEMU uses; KVM has 32764. */
#define TWIN_SLOT   16384

static bool has_twin[TWIN_SLOT];
static bool twin_is_shared;
/* By file descriptor, of vCPUs */
static struct kvm_run *runs[1024];

static void __attribute__((constructor)) set_up(void)
{
    const char *kind = getenv("GUEST_MEMFD_TWIN");

    twin_is_shared = kind && !strcmp(kind, "shared");
}

static int set_region(int vm, struct kvm_userspace_memory_region2 *region)
{
    return syscall(SYS_ioctl, vm, KVM_SET_USER_MEMORY_REGION2, region);
}

static int set_both(int vm, const struct kvm_userspace_memory_region2 *region)
{
    struct kvm_userspace_memory_region2 twin = *region, here = *region;
    uint32_t slot = region->slot;
    bool wants_twin = region->memory_size &&
                      region->flags & KVM_MEM_GUEST_MEMFD;

    if (slot >= TWIN_SLOT || !(has_twin[slot] || wants_twin)) {
        return set_region(vm, &here);
    }
    twin.slot += TWIN_SLOT;
    twin.guest_phys_addr += TWIN;
    if (!wants_twin) {
        twin.memory_size = 0;
    }
    if (twin_is_shared) {
        twin.flags &= ~KVM_MEM_GUEST_MEMFD;
    } else {
        here.flags &= ~KVM_MEM_GUEST_MEMFD;
    }
    if (set_region(vm, &twin)) {
        return -1;
    }
    has_twin[slot] = wants_twin;
    return set_region(vm, &here);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);

    if (request == KVM_SET_USER_MEMORY_REGION2) {
        return set_both(fd, arg);
    }
    ret = syscall(SYS_ioctl, fd, request, arg);
    if (request == KVM_RUN && ret < 0 && fd < (int)ARRAY_SIZE(runs) &&
        runs[fd] && runs[fd]->exit_reason == KVM_EXIT_MEMORY_FAULT) {
        runs[fd]->memory_fault.gpa &= ~TWIN;
    } else if (request == KVM_CREATE_VCPU && ret >= 0 &&
               ret < (int)ARRAY_SIZE(runs)) {
        runs[ret] = (void *)syscall(SYS_mmap, NULL, sizeof(struct kvm_run),
                                    PROT_READ | PROT_WRITE, MAP_SHARED, ret, 0);
        if (runs[ret] == MAP_FAILED) {
            abort();
        }
    }
    return ret;
}
