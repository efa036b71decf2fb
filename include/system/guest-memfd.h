/*
 * Private memory of a VM: conversion of guest memory, RAM discard
 *
 * A RAM block with a private half (RAM_GUEST_MEMFD) has a GuestMemfdBlock,
 * which owns the state of its pages (a GuestMemfdMap) and, as the block's
 * RamDiscardManager, tells users like VFIO which pages are shared: to them
 * shared memory is populated, private memory discarded.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "qemu/notify.h"
#include "qom/object.h"
#include "system/guest-memfd-map.h"
#include "system/memory.h"
#include "system/ramblock.h"

#define TYPE_GUEST_MEMFD_BLOCK "guest-memfd-block"
OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdBlock, GUEST_MEMFD_BLOCK)

struct GuestMemfdBlock {
    Object parent;

    RAMBlock *rb;
    GuestMemfdMap map;
    QLIST_HEAD(, RamDiscardListener) listeners;
    bool told;                  /* that a listener could not get all memory */
};

/**
 * guest_memfd_required: does the main memory of the machine get a private half?
 * @machine: the machine
 */
bool guest_memfd_required(MachineState *machine);

/* guest_memfd_initially_private: is all private memory private at the start? */
bool guest_memfd_initially_private(void);

/**
 * guest_memfd_block_create: begin to keep the state of a RAM block's pages
 * @rb: the block, with a guest_memfd, not yet mapped into an address space
 * @errp: set if the block's own memory cannot be freed while it is private, or
 *     if its memory region has a RamDiscardManager already
 *
 * Returns: the GuestMemfdBlock, or NULL
 */
GuestMemfdBlock *guest_memfd_block_create(RAMBlock *rb, Error **errp);

/* guest_memfd_block_destroy: end that; nothing may use the block any more */
void guest_memfd_block_destroy(GuestMemfdBlock *block);

/**
 * guest_memfd_of: the GuestMemfdBlock of a RAM block, or NULL
 * @rb: the block, or NULL
 */
GuestMemfdBlock *guest_memfd_of(const RAMBlock *rb);

/**
 * guest_memfd_add_plug_notifier: be asked before memory is plugged
 * @notifier: gets the MemoryRegion, which can have private memory; returns
 *     non-zero, and sets the error, if it cannot have any more of such memory
 *
 * Called with the BQL held, as the notifier is.
 */
void guest_memfd_add_plug_notifier(NotifierWithReturn *notifier);

/**
 * guest_memfd_check_plug: can the memory of a device be plugged?
 * @mr: its memory, not yet mapped into the address space
 * @errp: says why not
 *
 * Returns: false if a notifier refuses it
 */
bool guest_memfd_check_plug(MemoryRegion *mr, Error **errp);

/**
 * guest_memfd_may_access: may QEMU and its devices access guest memory?
 * @mr: RAM or anything else
 * @offset: in @mr
 * @size: in bytes; is set to how far the answer holds.  NULL if nothing is to
 *     be accessed
 *
 * QEMU's memory for private pages is not theirs: an access would read zeros,
 * take host memory, and be lost with the next conversion.
 *
 * Returns: false if the memory is private
 */
bool guest_memfd_may_access(const MemoryRegion *mr, hwaddr offset,
                            hwaddr *size);

/**
 * guest_memfd_guards_access: can guest_memfd_may_access() say no in this VM?
 *
 * It cannot in VMs that start all private (SNP, TDX), nor in those without
 * private memory.  Can be called by any thread.
 */
bool guest_memfd_guards_access(void);

/**
 * guest_memfd_is_private: is any of a range private?
 * @rb: a RAM block, or NULL
 * @offset: in @rb, in bytes
 * @size: in bytes, not 0
 */
bool guest_memfd_is_private(const RAMBlock *rb, uint64_t offset, uint64_t size);

/**
 * guest_memfd_dumps_private: does a dump have zeros for private memory?
 * @mr: RAM
 *
 * Returns: false if a dump has shared memory only.  So it is where all memory
 *     is private at first (SEV-SNP, TDX): there most of it stays so, and the
 *     dump would be as large as the guest's memory.
 */
bool guest_memfd_dumps_private(const MemoryRegion *mr);

/* guest_memfd_dump_begin: a dump of the guest's memory begins */
void guest_memfd_dump_begin(void);

/**
 * guest_memfd_dump: what a dump of the guest's memory contains
 * @mr: RAM, of any kind
 * @host: where QEMU has it
 * @size: in bytes; set to the size of what is returned, from 1 to @size
 * @private: increased by what is private of that, in bytes; can be NULL
 *
 * Called by one dump at a time, after guest_memfd_dump_begin() and with the VM
 * stopped.
 *
 * Returns: @host; or zeros, if the memory is private or not allocated
 */
void *guest_memfd_dump(const MemoryRegion *mr, void *host, size_t *size,
                       uint64_t *private);

/**
 * guest_memfd_balloon: the guest has given pages away, free them
 * @rb: a RAM block
 * @offset: in @rb, in bytes
 * @size: in bytes; parts of pages at the ends are ignored
 *
 * Frees both halves, except shared memory that is reserved for this VM (see
 * guest_memfd_shared_drop()).  Private pages stay private, and are zero when
 * the guest takes them back.  In VMs that start private (SEV-SNP, TDX) their
 * private half is not freed, as the guest would have to accept it again.
 *
 * Errors are ignored, as they are for all memory in the balloon, and not
 * reported: the guest could repeat them.
 *
 * Returns: false, having done nothing, if the block has no private memory
 */
bool guest_memfd_balloon(RAMBlock *rb, uint64_t offset, uint64_t size);

/* The shared half: system/guest-memfd-shared.c */

/**
 * guest_memfd_shared_init: can the block's own memory serve as a shared half?
 * @rb: the block, before anything is written to it
 * @errp: names the block, the reason, and what to use instead
 *
 * Tries once what guest_memfd_shared_drop() does.  The contents of a file are
 * not touched.
 *
 * Returns: false if not
 */
bool guest_memfd_shared_init(RAMBlock *rb, Error **errp);

/**
 * guest_memfd_shared_free_size: in which units is the shared half freed?
 * @rb: the block
 *
 * Returns: a number of bytes: the size of a huge page if such are freed
 */
uint64_t guest_memfd_shared_free_size(RAMBlock *rb);

/**
 * guest_memfd_shared_has_prealloc: does prealloc=on allocate the shared half?
 * @rb: any block
 *
 * Returns: false if all of it is private at first, and its pages are small:
 *     the shared half would then take host memory for nothing
 */
bool guest_memfd_shared_has_prealloc(const RAMBlock *rb);

/**
 * guest_memfd_shared_drop: free the shared half of private memory, or clear it
 * @block: the block; its map says already that the range is private
 * @offset: in the block, in bytes, page aligned
 * @size: in bytes, page aligned
 *
 * It reads as zeros afterwards.  Memory that could be lost to others is cleared
 * and stays allocated: huge pages with a reservation, and files with
 * prealloc=on.
 *
 * Called with guest_memfd_lock() held.
 *
 * Returns: 0, or -errno
 */
int guest_memfd_shared_drop(GuestMemfdBlock *block, uint64_t offset,
                            uint64_t size);

/**
 * guest_memfd_shared_acquire: allocate shared memory for private pages
 * @block: the block; its map still says that the pages are private
 * @offset: in the block, in bytes, page aligned
 * @size: in bytes, page aligned
 *
 * For huge pages that guest_memfd_shared_drop() may have freed, as an access to
 * one that cannot be allocated ends in SIGBUS.  Does nothing for other memory.
 *
 * Called with guest_memfd_lock() held.
 *
 * Returns: 0, or -errno (-ENOMEM if there are no huge pages), with some of them
 *     allocated
 */
int guest_memfd_shared_acquire(GuestMemfdBlock *block, uint64_t offset,
                               uint64_t size);

/* guest_memfd_shared_balloon: free shared memory, unless it is reserved */
void guest_memfd_shared_balloon(RAMBlock *rb, uint64_t offset, uint64_t size);

/* guest_memfd_stats_init: add the provider guest-memfd to query-stats, once */
void guest_memfd_stats_init(void);

/**
 * guest_memfd_query_conversion: what QMP tells about private memory
 * @block: the block
 *
 * Called with the BQL held.
 */
GuestMemfdConversion *guest_memfd_query_conversion(GuestMemfdBlock *block);

/**
 * guest_memfd_convert: convert guest memory, all of a range or nothing of it
 * @start: guest physical address
 * @size: in bytes
 * @to_private: the state that the memory is to have
 * @cpu: the vCPU that asks, if its guest can be made to ask again; or NULL
 *
 * The range may cover several RAM blocks.  Memory that cannot be private is
 * shared already, be it RAM, ROM, a device's or nothing at all: firmware asks
 * for it to be made shared.
 *
 * Takes the BQL, if the caller does not have it, for a part of a long range at
 * a time.  If another thread converts a part of the range at the same time,
 * each page has a state that one of them asked for.
 *
 * When something else wants @cpu in the middle of a long range, -EINTR is
 * returned.  The part that has been converted stays so; its former contents are
 * kept.  The next call with the same arguments goes on.  If there is none, the
 * request is undone when another one needs its pages.
 *
 * Returns: the number of pages that changed, or
 *   -EINVAL          @start or @size not page aligned, size 0, the range wraps,
 *                    or has memory that cannot be private (and shall be)
 *   -EBUSY           memory cannot become private during a migration
 *   -EINTR           @cpu has to stop: ask again
 *   -ENOTRECOVERABLE a step failed and could not be undone: stop the VM
 *   -errno           a step failed, with this error; all is as before
 */
int64_t guest_memfd_convert(hwaddr start, hwaddr size, bool to_private,
                            CPUState *cpu);

/**
 * guest_memfd_forget_requests: forget what guest_memfd_convert() may go on with
 *
 * For a reset, which gives all memory another state.  Called with the BQL held
 * and no vCPU running.
 */
void guest_memfd_forget_requests(void);

/**
 * guest_memfd_forget_block: as guest_memfd_forget_requests(), for one block
 * @block: a block that is not in the memory map any more
 *
 * Called with the BQL held.  vCPUs can run: a request that is in the middle of
 * a long range goes on with what else it converts.
 */
void guest_memfd_forget_block(GuestMemfdBlock *block);

/**
 * guest_memfd_conversion_failed: tell management of a request that is refused
 * @start: guest physical address
 * @size: in bytes
 * @to_private: the state that the memory was to have
 * @error: errno
 *
 * guest_memfd_convert() does that itself.
 */
void guest_memfd_conversion_failed(hwaddr start, uint64_t size,
                                   bool to_private, int error);

/**
 * guest_memfd_fault: a vCPU could not access memory as private or shared
 * @start: guest physical address
 * @size: in bytes
 * @private: how the vCPU wanted to access it
 *
 * Where the guest itself tells for each access (SEV-SNP, TDX), it wants the
 * memory to be converted.  In a software-protected VM it does not: there KVM
 * has looked the state up, and then it changed, because another vCPU has
 * converted the memory or because it was unplugged.  To convert it back would
 * undo that; nothing is done, and the access is to be repeated.
 *
 * Returns: as guest_memfd_convert(); 0 in a software-protected VM
 */
int64_t guest_memfd_fault(hwaddr start, hwaddr size, bool private);

/**
 * guest_memfd_blocks_migration: is there memory that cannot be migrated?
 *
 * If there is none, all memory slots can be logged from now on, and are if dirty
 * logging is on already.  The caller has to begin its migration before it lets go
 * of the BQL, as then no memory becomes private any more.
 *
 * Called with the BQL held.
 *
 * Returns: true, and sets @errp, if some memory is private
 */
bool guest_memfd_blocks_migration(Error **errp);

/**
 * guest_memfd_end_migration: QEMU quits, there will be no migration any more
 *
 * vCPUs run, and convert memory, for a moment longer than there is something
 * that could be asked for a migration.  Called with the BQL held.
 */
void guest_memfd_end_migration(void);

/**
 * guest_memfd_reset: bring all pages into their initial state
 *
 * Private memory is freed, so its contents are gone.  If a block fails, the
 * others are reset all the same.  Called with the BQL held and no vCPU running.
 *
 * Returns: 0, or -errno; the failure has been reported.
 */
int guest_memfd_reset(void);

/**
 * guest_memfd_reset_failed: must the VM not run until it is reset again?
 *
 * That is so if the last guest_memfd_reset() has failed, as the guest would find
 * memory in a state that it does not expect, and if KVM has failed to take back
 * a memory slot.  Called with the BQL held.
 */
bool guest_memfd_reset_failed(void);

/**
 * guest_memfd_unmapped: a RAM block is not part of the machine any more
 * @rb: the block, or NULL; a device that used it has been unplugged
 *
 * Brings its pages into their initial state and frees private memory: what uses
 * the block next finds it as new.  Called with the BQL held.
 */
void guest_memfd_unmapped(RAMBlock *rb);

#endif
