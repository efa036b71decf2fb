/*
 * KVM guest_memfd: what KVM does for memory in a guest_memfd
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

#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "system/ramblock.h"

struct GuestMemfdBlock;

/**
 * kvm_gmem_choose_mode: find out how this VM converts private memory
 *
 * @cgs: the machine's confidential guest support, or NULL; its in_place is set
 * @errp: set if KVM does not offer what the user or @cgs needs
 *
 * Called once, with the VM made and before any memory is.
 */
bool kvm_gmem_choose_mode(ConfidentialGuestSupport *cgs, Error **errp);

/**
 * kvm_gmem_create_mmap: create a guest_memfd that QEMU can map
 *
 * @size: size of the file in bytes, a multiple of the host's page size
 * @shared: are its pages shared at first?  If not, the VM must convert in place
 * @huge_pages: whether KVM is to take pages of 2 MiB for it; auto: if it can
 * @errp: set on failure; the message says what the host lacks
 *
 * The file belongs to this process's VM: another VM cannot bind it.
 *
 * Returns: the file descriptor, or -1.
 */
int kvm_gmem_create_mmap(uint64_t size, bool shared, OnOffAuto huge_pages,
                         Error **errp);

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
 * @block: the block that the memory belongs to
 * @offset: in @block, in bytes
 * @size: in bytes
 * @private: true to map the private memory, false to map the shared memory
 * @done: set on failure: so many bytes from @offset on have changed
 *
 * Where no memory slot is bound to the guest_memfd, there is nothing to do.
 * Called with the BQL and guest_memfd_lock() held.  The BQL is enough to look
 * at memory slots: they only change with it held.
 *
 * Returns: 0, or -errno
 */
int kvm_gmem_set_private(const struct GuestMemfdBlock *block, uint64_t offset,
                         uint64_t size, bool private, uint64_t *done);

/**
 * kvm_gmem_file_set_private: change the state of pages in place
 *
 * @rb: a block with RAM_GUEST_MEMFD_MMAP, of a VM that converts in place
 * @offset: in @rb, in bytes
 * @size: in bytes
 * @private: the state that the pages are to have
 * @done: set on failure: so many bytes from @offset on have changed
 *
 * All memory slots over the file follow.  Called with the BQL and
 * guest_memfd_lock() held.
 *
 * Returns: 0; -EAGAIN if the page at @offset + @done cannot become private,
 *     because somebody holds a reference to it; or -errno
 */
int kvm_gmem_file_set_private(const RAMBlock *rb, uint64_t offset,
                              uint64_t size, bool private, uint64_t *done);

/**
 * kvm_gmem_end_dirty_log: end dirty logging where memory is to become private
 *
 * @block: the block that it belongs to
 * @offset: in @block, in bytes
 * @size: in bytes
 *
 * The memory slots there are bound to the guest_memfd instead, until they have
 * had no private memory for a second or so.  Not to be called while a migration
 * runs.
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
 * needs that when it begins: the memory core does not ask again if dirty
 * logging is on for another reason.  Called with the BQL held.
 */
void kvm_gmem_begin_dirty_log(void);

/**
 * kvm_gmem_slots_lost: is there guest memory that KVM has failed to take back?
 *
 * No vCPU may run then.
 */
bool kvm_gmem_slots_lost(void);

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

#endif
