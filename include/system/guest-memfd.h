/*
 * Private memory of a VM: conversion of guest memory, RAM discard
 *
 * A RAM block that can have private memory (RAM_GUEST_MEMFD) has a
 * GuestMemfdBlock, which owns the state of its pages.  As the block's
 * RamDiscardManager it tells users like VFIO which pages are shared: for them,
 * shared memory is populated and private memory discarded.
 *
 * This header is what the rest of QEMU needs.  The files of this subsystem use
 * system/guest-memfd-block.h as well.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-common.h"
#include "qemu/notify.h"
#include "qemu/typedefs.h"
#include "system/memory.h"
#include "system/ramblock.h"

typedef struct GuestMemfdBlock GuestMemfdBlock;

/**
 * guest_memfd_machine_has_private: can the machine's RAM have private memory?
 * @machine: the machine
 *
 * Main memory and what backends provide.  Whether ROM can, too, is what
 * machine_require_guest_memfd() says.
 */
bool guest_memfd_machine_has_private(const MachineState *machine);

/**
 * guest_memfd_backend_alloc: have a memory backend's memory in a guest_memfd
 * @backend: the backend, of this or another type
 * @hugetlb: of the shared half of private memory
 * @hugetlbsize: of these huge pages, in bytes; 0 for the host's default
 * @huge_pages: of the guest_memfd itself
 * @errp: set on failure
 *
 * As memory-backend-guest-memfd has it: with private memory that is not
 * converted in place, the backend's own memory is a memfd.
 *
 * Returns: whether the backend has its memory
 */
bool guest_memfd_backend_alloc(HostMemoryBackend *backend, bool hugetlb,
                               uint64_t hugetlbsize, OnOffAuto huge_pages,
                               Error **errp);

/**
 * guest_memfd_in_place: does this VM convert private memory in place?
 *
 * Then all RAM blocks that can have private memory are guest_memfds that QEMU
 * maps.  Known from the time on when the accelerator has been made.
 */
bool guest_memfd_in_place(void);

/**
 * guest_memfd_in_place_is_open: can QEMU write what the guest starts from?
 *
 * That is so in a VM that starts all private (SEV-SNP, TDX) until
 * guest_memfd_launch(): the map says that its memory is private, but for KVM it
 * is shared.
 */
bool guest_memfd_in_place_is_open(void);

/* guest_memfd_in_place_is_launched: is new memory private for KVM? */
bool guest_memfd_in_place_is_launched(void);

/**
 * guest_memfd_in_place_add_property: add the property "convert-in-place"
 * @oc: the class of the objects for confidential guests
 */
void guest_memfd_in_place_add_property(ObjectClass *oc);

/**
 * guest_memfd_in_place_alloc: make a RAM block that can be converted in place
 * @size: in bytes
 * @ram_flags: with RAM_GUEST_MEMFD, without RAM_PRIVATE
 * @mr: the memory region that it is for
 * @errp: set on failure
 *
 * Returns: the block, or NULL
 */
RAMBlock *guest_memfd_in_place_alloc(uint64_t size, uint32_t ram_flags,
                                     MemoryRegion *mr, Error **errp);

/**
 * guest_memfd_launch: end the time in which QEMU writes what is launched
 * @errp: says which page could not become private, and why
 *
 * For guests that start all private (SEV-SNP, TDX), where memory is converted
 * in place: see guest-memfd-launch.c.  Elsewhere it does nothing.  Called with
 * the BQL held, before the platform's launch commands, and before a vCPU runs.
 *
 * Returns: false if the guest cannot be launched
 */
bool guest_memfd_launch(Error **errp);

/**
 * guest_memfd_launch_memory: write memory that is launched
 * @start: guest physical address
 * @size: in bytes
 * @contents: what to write there; it may be there already
 * @len: of @contents, in bytes; the rest up to @size is cleared, unless
 *     @contents is there already.  0 to clear it all
 * @errp: set if there is no memory that can be private
 *
 * Called with the BQL held, while guest_memfd_in_place_is_open().
 *
 * Returns: where QEMU has that memory, until guest_memfd_launch(); or NULL
 */
void *guest_memfd_launch_memory(hwaddr start, uint64_t size,
                                const void *contents, uint64_t len,
                                Error **errp);

#ifdef CONFIG_LINUX
/**
 * guest_memfd_sigbus: handle SIGBUS in any thread
 * @info: from the signal
 *
 * Returns: true if the thread can go on; false if the signal is another one's
 */
bool guest_memfd_sigbus(const siginfo_t *info);
#endif

/**
 * guest_memfd_create_half: create the private half of a RAM block
 * @rb: the block, with RAM_GUEST_MEMFD
 * @errp: set on failure
 *
 * A block whose pages are converted in place has none.
 */
bool guest_memfd_create_half(RAMBlock *rb, Error **errp);

/**
 * guest_memfd_block_create: begin to keep the state of a RAM block's pages
 * @rb: the block, after guest_memfd_create_half(), not yet mapped into an
 * address space
 * @errp: set if the block's own memory cannot be freed while it is private or
 *     cannot be converted in place, as this VM's memory is; or if its memory
 *     region has a RamDiscardManager already
 *
 * Returns: the GuestMemfdBlock, or NULL
 */
GuestMemfdBlock *guest_memfd_block_create(RAMBlock *rb, Error **errp);

/* guest_memfd_block_destroy: free the block, which nothing may use any more */
void guest_memfd_block_destroy(GuestMemfdBlock *block);

/**
 * guest_memfd_of: the GuestMemfdBlock of a RAM block, or NULL
 * @rb: the block, or NULL
 */
static inline GuestMemfdBlock *guest_memfd_of(const RAMBlock *rb)
{
    return rb ? rb->guest_memfd_block : NULL;
}

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
 * For a private page, RAMBlock.host is the unused shared half: reads return
 * zeros, writes allocate a page and are lost when the page is next converted.
 * In place, reads return zeros and writes are lost (guest-memfd-sigbus.c).
 *
 * Can be called by any thread.
 *
 * Returns: false if the memory is private
 */
bool guest_memfd_block_may_access(const GuestMemfdBlock *block, hwaddr offset,
                                  hwaddr *size);

static inline bool guest_memfd_may_access(const MemoryRegion *mr,
                                          hwaddr offset, hwaddr *size)
{
    const GuestMemfdBlock *block = guest_memfd_of(mr->ram_block);

    return likely(!block) || guest_memfd_block_may_access(block, offset, size);
}

/**
 * guest_memfd_guards_access: can guest_memfd_may_access() say no in this VM?
 *
 * It cannot in VMs that start all private (SNP, TDX), unless their memory is
 * converted in place, nor in those without private memory.  Can be called by
 * any thread.
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

/**
 * guest_memfd_shared_has_prealloc: does prealloc=on allocate a block's memory?
 * @rb: any block
 *
 * Returns: false if all of it is private at first, and its pages are small:
 *     the shared half would then take host memory for nothing.  In place, it is
 *     all allocated until the guest is launched
 */
bool guest_memfd_shared_has_prealloc(const RAMBlock *rb);

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
 * guest_memfd_convert_pages: guest_memfd_convert(), as a guest asks for it
 * @start: guest physical address
 * @nr_pages: number of the guest's pages, of qemu_target_page_size()
 * @to_private: the state that the memory is to have
 * @valid: false to refuse the request, since something else in it is wrong
 * @cpu: as for guest_memfd_convert()
 *
 * Returns: as guest_memfd_convert(); -EINVAL as well if the number of bytes
 *     overflows, or if the request is not @valid
 */
int64_t guest_memfd_convert_pages(hwaddr start, uint64_t nr_pages,
                                  bool to_private, bool valid, CPUState *cpu);

/* guest_memfd_access_is_request: see ConfidentialGuestSupport; any thread */
bool guest_memfd_access_is_request(void);

/**
 * guest_memfd_fault: a vCPU could not access memory as private or shared
 * @start: guest physical address
 * @size: in bytes
 * @private: how the vCPU wanted to access it
 * @cpu: as for guest_memfd_convert()
 *
 * Where the guest itself tells for each access (SEV-SNP, TDX), it wants the
 * memory to be converted.  In a software-protected VM it does not: there KVM
 * has looked the state up, and then the state changed, because another vCPU has
 * converted the memory or because it was unplugged.  To convert it back would
 * undo that, so this function does nothing, and the vCPU repeats the access.
 *
 * Returns: as guest_memfd_convert(); 0 in a software-protected VM
 */
int64_t guest_memfd_fault(hwaddr start, hwaddr size, bool private,
                          CPUState *cpu);

/**
 * guest_memfd_blocks_migration: is there memory that cannot be migrated?
 *
 * Called with the BQL held.
 *
 * Returns: true, and sets @errp, if some memory is private
 */
bool guest_memfd_blocks_migration(Error **errp);

/**
 * guest_memfd_begin_migration: begin a migration or a snapshot
 *
 * All memory slots can be logged from now on, and are if dirty logging is on
 * already.  The caller has to begin its migration before it lets go of the BQL,
 * as then no memory becomes private any more.
 *
 * Called with the BQL held.
 *
 * Returns: false, and sets @errp, if some memory is private
 */
bool guest_memfd_begin_migration(Error **errp);

/**
 * guest_memfd_end_migration: QEMU quits, there will be no migration any more
 *
 * vCPUs can still convert memory after migration_shutdown() has freed
 * current_migration; from here on nobody may ask for a migration's state.
 * Called with the BQL held.
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
 * That is so if the last guest_memfd_reset() has failed, as the guest would
 * find memory in a state that it does not expect, and if KVM has failed to take
 * back a memory slot.  Called with the BQL held.
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
