/*
 * KVM guest_memfd: what other code calls, in a QEMU without KVM
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/kvm-gmem.h"

int kvm_gmem_create_mmap(uint64_t size, bool shared, OnOffAuto huge_pages,
                         Error **errp)
{
    error_setg(errp, "this QEMU is built without KVM");
    return -1;
}

int kvm_gmem_set_private(const struct GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, bool private, uint64_t *done)
{
    *done = 0;
    return -ENOSYS;
}

int kvm_gmem_file_set_private(const RAMBlock *rb, uint64_t offset,
                              uint64_t size, bool private, uint64_t *done)
{
    *done = 0;
    return -ENOSYS;
}

int kvm_gmem_end_dirty_log(const struct GuestMemfdBlock *block,
                           uint64_t offset, uint64_t size)
{
    return -ENOSYS;
}

void kvm_gmem_begin_dirty_log(void)
{
}

bool kvm_gmem_slots_lost(void)
{
    return false;
}

GuestMemfdSlotList *kvm_gmem_query_slots(const RAMBlock *rb)
{
    return NULL;
}
