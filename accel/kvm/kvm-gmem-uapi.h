/*
 * KVM guest_memfd: what Linux 7.4 and companion/linux add to KVM's interface
 *
 * The former until QEMU's copy of Linux's headers has it.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GMEM_UAPI_H
#define ACCEL_KVM_GMEM_UAPI_H

#include <linux/kvm.h>

#ifndef KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES
#define KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES 252
#endif

/* companion/linux/2-huge-pages */
#ifndef GUEST_MEMFD_FLAG_HUGE_2M
#define GUEST_MEMFD_FLAG_HUGE_2M (1ULL << 30)
#endif

#ifndef KVM_SET_MEMORY_ATTRIBUTES2
struct kvm_memory_attributes2 {
    __u64 offset;
    __u64 size;
    __u64 attributes;
    __u64 flags;
    __u64 error_offset;
    __u64 reserved[11];
};
#define KVM_SET_MEMORY_ATTRIBUTES2 \
    _IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2)
#endif

#endif
