/*
 * Locked guest memory: what companion/linux adds to KVM's interface
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_LOCK_UAPI_H
#define ACCEL_KVM_LOCK_UAPI_H

#include <linux/kvm.h>

#ifndef KVM_CAP_ARM_LOCK_USER_MEMORY_REGION
#define KVM_CAP_ARM_LOCK_USER_MEMORY_REGION 1207
#define KVM_ARM_LOCK_USER_MEMORY_REGION_FLAGS_LOCK (1 << 0)
#define KVM_ARM_LOCK_USER_MEMORY_REGION_FLAGS_UNLOCK (1 << 1)
#define KVM_ARM_LOCK_MEM_READ (1 << 0)
#define KVM_ARM_LOCK_MEM_WRITE (1 << 1)
#endif

#endif
