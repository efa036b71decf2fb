/*
 * Locked guest memory: what other code calls, in a QEMU without KVM
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/kvm-lock.h"

bool kvm_lock_check(HostMemoryBackend *backend, Error **errp)
{
    error_setg(errp, "property 'lock' needs KVM");
    return false;
}

bool kvm_lock_add(RAMBlock *rb, Error **errp)
{
    g_assert_not_reached();
}

void kvm_lock_remove(RAMBlock *rb)
{
    g_assert_not_reached();
}

bool kvm_lock_used(void)
{
    return false;
}

MemdevLock *kvm_lock_query(const RAMBlock *rb)
{
    return NULL;
}
