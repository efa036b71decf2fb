/*
 * Locked guest memory: memory slots, for kvm-all.c
 *
 * All functions are called with the BQL held.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_LOCK_H
#define ACCEL_KVM_LOCK_H

#include "system/kvm_int.h"

/**
 * kvm_lock_slot_release: unlock a slot before KVM changes or deletes it
 *
 * @slot: the slot, locked or not; its size is 0 if it is to be deleted
 *
 * KVM refuses any change of a locked slot.  Called with slots_lock held.
 */
void kvm_lock_slot_release(KVMSlot *slot);

/**
 * kvm_lock_commit: lock what is to be locked and is not
 *
 * @kml: the listener whose slots have changed
 *
 * Where KVM fails, the memory stays unlocked: this warns and sends an event,
 * and does not try again until the slot changes.  vCPUs may run meanwhile.
 * Called with slots_lock held.
 */
void kvm_lock_commit(KVMMemoryListener *kml);

/**
 * kvm_lock_release_page: unlock what is over a page that is to be replaced
 *
 * @addr: of the page
 *
 * kvm_lock_commit_all() locks it again.
 */
void kvm_lock_release_page(ram_addr_t addr);

/**
 * kvm_lock_commit_all: call kvm_lock_commit() for all address spaces
 */
void kvm_lock_commit_all(void);

#endif
