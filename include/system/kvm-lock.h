/*
 * Locked guest memory: what other code calls
 *
 * A memory backend with lock=on has its memory *locked* by KVM: its pages are
 * pinned, and the guest's page tables (stage 2) map all of them from the moment
 * of the lock on.  No access of the guest to such memory is a fault that KVM
 * has to serve.  RAMBlock.lock says that the user has asked for that;
 * query-memdev says what has come of it.  docs/devel/locked-memory.rst has
 * the rules.
 *
 * All functions are called with the BQL held, unless they say otherwise.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_KVM_LOCK_H
#define SYSTEM_KVM_LOCK_H

#include "qapi/qapi-types-memory-lock.h"
#include "system/hostmem.h"
#include "system/ramblock.h"

/**
 * kvm_lock_check: can the memory of a backend be locked at all?
 *
 * @backend: a backend with lock=on, whose memory does not exist yet
 * @errp: set if not; the message names the option and what to do
 *
 * Turns @backend->merge off if nobody has asked for it.
 */
bool kvm_lock_check(HostMemoryBackend *backend, Error **errp);

/**
 * kvm_lock_add: have the memory of a backend locked
 *
 * @rb: the backend's memory
 * @errp: set if QEMU may not lock as much, or if something in this VM discards
 *        memory
 *
 * KVM locks it as soon as the machine is complete and the memory is plugged.
 * Until @rb is freed, no memory of the VM can be discarded.
 */
bool kvm_lock_add(RAMBlock *rb, Error **errp);

/**
 * kvm_lock_remove: forget memory that kvm_lock_add() was called for
 *
 * @rb: memory that is about to be freed; no memslot is over it any more
 */
void kvm_lock_remove(RAMBlock *rb);

/**
 * kvm_lock_used: is there memory to be locked, plugged or not?
 */
bool kvm_lock_used(void);

/**
 * kvm_lock_query: what has come of lock=on
 *
 * @rb: the memory of a backend, or NULL
 *
 * Returns: what query-memdev tells; NULL if @rb is not to be locked
 */
MemdevLock *kvm_lock_query(const RAMBlock *rb);

#endif
