/*
 * KVM guest_memfd: creating the file, binding memslots to it
 *
 * A RAM block that is flagged RAM_GUEST_MEMFD_MMAP is backed by a guest_memfd
 * that QEMU itself has mapped: RAMBlock.fd is the guest_memfd.  Each memslot
 * over such a block is either *bound* to the file (KVM_MEM_GUEST_MEMFD) or,
 * where KVM refuses that, registered *by address* over QEMU's mapping of the
 * same pages.  docs/devel/guest-memfd.rst has the rules.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_KVM_GMEM_H
#define SYSTEM_KVM_GMEM_H

#include "qapi/qapi-types-guest-memfd.h"
#include "system/ramblock.h"

struct GuestMemfdBlock;
struct KVMMemoryListener;
struct KVMSlot;

/**
 * kvm_gmem_create_mmap: create a guest_memfd that QEMU can map
 *
 * @size: size of the file in bytes, a multiple of the host's page size
 * @errp: set on failure; the message says what the host lacks
 *
 * All pages of the file are shared from the start.  The file belongs to this
 * process's VM: another VM cannot bind it.
 *
 * Returns: the file descriptor, or -1.
 */
int kvm_gmem_create_mmap(uint64_t size, Error **errp);

/**
 * kvm_gmem_query_slots: list the memslots over a RAM block
 *
 * @rb: a block with RAM_GUEST_MEMFD_MMAP or RAM_GUEST_MEMFD
 *
 * Called with the BQL held.
 *
 * Returns: a list, by address space and slot number; NULL if there are none.
 */
GuestMemfdSlotList *kvm_gmem_query_slots(const RAMBlock *rb);

/**
 * kvm_gmem_set_private: have KVM map private or shared memory
 *
 * @rb: a block with a guest_memfd for private memory
 * @offset: in bytes
 * @size: in bytes
 * @private: which
 *
 * Where no memslot is bound to the guest_memfd, there is nothing to do.
 * Called with the BQL and guest_memfd_lock() held.
 *
 * Returns: 0, or -errno; then nothing has changed, but for -ENOTRECOVERABLE.
 */
int kvm_gmem_set_private(const RAMBlock *rb, uint64_t offset, uint64_t size,
                         bool private);

/**
 * kvm_gmem_check_bound: can guest memory become private?
 *
 * @rb: the block that it belongs to
 * @start: guest physical address
 * @size: in bytes
 *
 * Called with the BQL held.
 *
 * Returns: 0; -EINVAL if it cannot because of its place in the memory map.
 */
int kvm_gmem_check_bound(const RAMBlock *rb, hwaddr start, uint64_t size);

/**
 * kvm_gmem_end_dirty_log: end dirty logging where memory is to become private
 *
 * @block: the block that it belongs to
 * @offset: in @block, in bytes
 * @size: in bytes
 *
 * The memslots there are bound to the guest_memfd instead, until a second has
 * passed without private memory.  Not to be called while a migration runs.
 * Called with the BQL held.
 *
 * Returns: 0, or -EINVAL if a slot cannot be bound.
 */
int kvm_gmem_end_dirty_log(const struct GuestMemfdBlock *block,
                           uint64_t offset, uint64_t size);

/**
 * kvm_gmem_begin_dirty_log: have all memslots logged that are to be logged
 *
 * Those that have no private memory any more begin to be logged.  A migration
 * needs that when it begins: the memory core does not ask again if dirty logging
 * is on for another reason.  Called with the BQL held.
 */
void kvm_gmem_begin_dirty_log(void);

/**
 * kvm_gmem_slots_lost: is there guest memory that KVM has failed to take back?
 *
 * No vCPU may run then.
 */
bool kvm_gmem_slots_lost(void);

/**
 * kvm_gmem_convert: guest_memfd_convert(), with KVM's trace event
 */
int64_t kvm_gmem_convert(hwaddr start, hwaddr size, bool to_private,
                         CPUState *cpu);

/**
 * kvm_gmem_memory_fault: handle KVM_EXIT_MEMORY_FAULT
 *
 * @start: guest physical address
 * @size: in bytes
 * @flags: KVM_MEMORY_EXIT_FLAG_*
 *
 * Returns: 0 if the guest can go on; -1, with an error reported, if it cannot.
 */
int kvm_gmem_memory_fault(hwaddr start, uint64_t size, uint64_t flags);

/*
 * For accel/kvm/kvm-all.c alone.  All are called with the BQL and
 * KVMMemoryListener's slots_lock held.
 */

/**
 * kvm_gmem_slot_init: complete a new slot that may lie over a guest_memfd
 *
 * @kml: the listener that owns @slot
 * @slot: the slot; address, size, RAM pointer and flags are set, but KVM does
 *        not know it yet.  On return its flags say if it is to be bound.
 * @rb: the RAM block below
 */
void kvm_gmem_slot_init(struct KVMMemoryListener *kml, struct KVMSlot *slot,
                        const RAMBlock *rb);

/**
 * kvm_gmem_slot_set_flags: decide if a slot is to be bound
 *
 * @kml: the listener that owns @slot
 * @slot: the slot, whose flags have just been computed anew; gains
 *        KVM_MEM_GUEST_MEMFD if it can be bound
 */
void kvm_gmem_slot_set_flags(struct KVMMemoryListener *kml,
                             struct KVMSlot *slot);

/**
 * kvm_gmem_slot_refused: KVM did not take a slot; shall it be tried again?
 *
 * @slot: the slot, not known to KVM
 * @error: KVM's answer, a negative errno
 *
 * Returns: true if @slot was to be bound.  Its flags then say "by address",
 *          and it stays so until kvm_gmem_slot_set_flags().
 */
bool kvm_gmem_slot_refused(struct KVMSlot *slot, int error);

/**
 * kvm_gmem_slot_failed: KVM has failed to add a slot, or to delete it
 *
 * @slot: the slot; its size is 0 if it was to be deleted
 * @error: KVM's answer, a negative errno
 *
 * A slot that cannot be added is *lost* from now on: the VM stops, and reset
 * tries again.  Reports an error then.
 *
 * Returns: 0 if QEMU can go on with this slot; else @error.
 */
int kvm_gmem_slot_failed(struct KVMSlot *slot, int error);

/**
 * kvm_gmem_slot_registered: KVM has taken a slot, or has deleted it
 *
 * @slot: the slot
 *
 * Sets the attributes of private memory below, or clears them.
 *
 * Returns: 0, or a negative errno if KVM does not set them; it has no such slot
 *          then.
 */
int kvm_gmem_slot_registered(struct KVMSlot *slot);

/**
 * kvm_gmem_slot_changing: a slot is about to be registered, changed or deleted
 *
 * @slot: the slot; its size is 0 if it is to be deleted
 *
 * Clears the attributes of private memory before the slot goes.  A private page
 * without a slot would be a memory fault; without a slot alone it is MMIO.
 */
void kvm_gmem_slot_changing(struct KVMSlot *slot);

/**
 * kvm_gmem_commit_pending: is there a slot to bind at the next commit?
 *
 * @kml: the listener to look at
 *
 * Also called without slots_lock.
 */
bool kvm_gmem_commit_pending(const struct KVMMemoryListener *kml);

/**
 * kvm_gmem_commit: bind what could not be bound until other slots went away
 *
 * @kml: the listener whose slots have changed
 * @inhibited: the caller has inhibited accelerator ioctls
 */
void kvm_gmem_commit(struct KVMMemoryListener *kml, bool inhibited);

#endif
