/*
 * KVM guest_memfd: memory slots, for kvm-all.c
 *
 * All functions are called with the BQL and slots_lock held.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GMEM_SLOTS_H
#define ACCEL_KVM_GMEM_SLOTS_H

#include "system/kvm_int.h"


/**
 * kvm_gmem_slot_init: complete a new slot that may lie over a guest_memfd
 *
 * @kml: the listener that owns @slot
 * @slot: the slot; address, size, RAM pointer and flags are set, but KVM does
 *        not know it yet.  On return its flags say if it is to be bound.
 * @rb: the RAM block below
 */
void kvm_gmem_slot_init(KVMMemoryListener *kml, KVMSlot *slot,
                        const RAMBlock *rb);

/**
 * kvm_gmem_slot_set_flags: decide if a slot is to be bound
 *
 * @kml: the listener that owns @slot
 * @slot: the slot, whose flags have just been computed anew; gains
 *        KVM_MEM_GUEST_MEMFD if it can be bound
 */
void kvm_gmem_slot_set_flags(KVMMemoryListener *kml, KVMSlot *slot);

/**
 * kvm_gmem_slot_fall_back: register a slot by address that KVM does not bind
 *
 * @slot: the slot, not known to KVM
 * @error: KVM's answer, a negative errno
 *
 * Returns: true if @slot was to be bound and can be tried again.  Its flags
 *          then say "by address", until kvm_gmem_slot_set_flags() changes that.
 */
bool kvm_gmem_slot_fall_back(KVMSlot *slot, int error);

/**
 * kvm_gmem_slot_lose: go on without a slot that KVM has failed to add or delete
 *
 * @slot: the slot; its size is 0 if it was to be deleted
 * @error: KVM's answer, a negative errno
 *
 * A slot that cannot be added is *lost* from now on: the VM stops, and reset
 * tries again.  Reports an error then.
 *
 * Returns: 0 if QEMU can go on with this slot; else @error.
 */
int kvm_gmem_slot_lose(KVMSlot *slot, int error);

/**
 * kvm_gmem_slot_complete: finish what KVM has done, add or delete a slot
 *
 * @slot: the slot
 *
 * Sets the attributes of private memory below, or clears them.
 *
 * Returns: 0, or a negative errno if KVM does not set them; it has no such slot
 *          then.
 */
int kvm_gmem_slot_complete(KVMSlot *slot);

/**
 * kvm_gmem_slot_prepare: prepare a slot for KVM to add, change or delete
 *
 * @slot: the slot; its size is 0 if it is to be deleted
 *
 * Clears the attributes of private memory before the slot goes.  An access to a
 * private page without a slot would be a memory fault; to a shared one it is
 * MMIO.
 */
void kvm_gmem_slot_prepare(KVMSlot *slot);

/**
 * kvm_gmem_commit_pending: is there a slot to bind at the next commit?
 *
 * @kml: the listener to look at
 *
 * Also called without slots_lock.
 */
bool kvm_gmem_commit_pending(const KVMMemoryListener *kml);

/**
 * kvm_gmem_commit: bind what could not be bound until other slots went away
 *
 * @kml: the listener whose slots have changed
 * @inhibited: the caller has inhibited accelerator ioctls
 */
void kvm_gmem_commit(KVMMemoryListener *kml, bool inhibited);

#endif
