/*
 * Private memory of a VM: its RAM blocks, for the files of this subsystem
 *
 * A GuestMemfdBlock keeps the state of the pages of one RAM block.  What it has
 * to do when that state changes, and what memory it frees, depends on how the
 * block keeps its memory: that is a GuestMemfdBlockOps.  There are two:
 * "split", a guest_memfd for private pages beside memory of any kind for shared
 * ones; and "in place", a guest_memfd for both, in which a page keeps its
 * place.
 *
 * The rest of QEMU uses system/guest-memfd.h.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_BLOCK_H
#define SYSTEM_GUEST_MEMFD_BLOCK_H

#include "qapi/qapi-types-guest-memfd.h"
#include "qom/object.h"
#include "system/guest-memfd-map.h"
#include "system/guest-memfd.h"
#include "system/memory.h"
#include "system/ramblock.h"

#define TYPE_GUEST_MEMFD_BLOCK "guest-memfd-block"
OBJECT_DECLARE_SIMPLE_TYPE(GuestMemfdBlock, GUEST_MEMFD_BLOCK)

/**
 * GuestMemfdBlockOps: how a block keeps its memory
 *
 * @mode: what QMP calls it
 * @file_has_attributes: KVM keeps in the file which pages are private, and not
 *     for guest addresses: a memory slot that comes or goes changes nothing
 * @map: what follows a change of state; see guest-memfd-map.h
 * @init: can the block have private memory?  Called before anything is written
 *     to the block.  Sets an error that names the block and what to use instead
 * @free_size: in units of how many bytes does @map.drop free shared memory?
 * @balloon: free shared memory of pages that the guest has given away, unless
 *     it is reserved for this VM.  Called with guest_memfd_lock() held
 * @forget: free what a request may have left that was forgotten.  Can be NULL
 * @drop_private: free private memory, whatever the state of its pages.  Returns
 *     0, or -errno
 */
typedef struct GuestMemfdBlockOps {
    GuestMemfdMode mode;
    bool file_has_attributes;
    GuestMemfdMapOps map;
    bool (*init)(RAMBlock *rb, Error **errp);
    uint64_t (*free_size)(RAMBlock *rb);
    void (*balloon)(RAMBlock *rb, uint64_t offset, uint64_t size);
    void (*forget)(RAMBlock *rb);
    int (*drop_private)(RAMBlock *rb, uint64_t offset, uint64_t size);
} GuestMemfdBlockOps;

/*
 * What Linux's largest errno is, EHWPOISON; anything larger is counted in the
 * last element of GuestMemfdStats.failures.
 */
#define GUEST_MEMFD_MAX_ERRNO 133

/*
 * How long a request, or the launch, sleeps before it tries again to make a
 * page private that something uses, in us, and how often it does so in all.
 * The time, a second, is that of a slow disk's request, and short beside what a
 * guest's kernel takes for a CPU that hangs (20 s in Linux).  Can be changed at
 * any time.
 */
#define GUEST_MEMFD_BUSY_US 1000
#define GUEST_MEMFD_BUSY_TRIES 1000

/* What requests have done to a block; see qapi/guest-memfd.json */
typedef struct GuestMemfdStats {
    uint64_t conversions[2];    /* to shared, to private */
    uint64_t pages[2];
    uint64_t failures[GUEST_MEMFD_MAX_ERRNO + 1];
    uint64_t ns;                /* spent */
} GuestMemfdStats;

/**
 * GuestMemfdView: a range of guest addresses that shows a part of a block
 *
 * The accelerator has one for each of its memory slots over the block that
 * vCPUs can see.  They do not overlap in guest addresses.
 *
 * @address: guest physical address
 * @offset: in the block, in bytes
 * @size: in bytes
 * @binding: what the accelerator has done with the slot
 */
typedef struct GuestMemfdView {
    hwaddr address;
    uint64_t offset;
    uint64_t size;
    GuestMemfdBinding binding;
    QTAILQ_ENTRY(GuestMemfdView) next;
} GuestMemfdView;

struct GuestMemfdBlock {
    Object parent;

    RAMBlock *rb;
    const GuestMemfdBlockOps *ops;
    GuestMemfdMap map;
    GuestMemfdStats stats;      /* with guest_memfd_lock() */
    /* By offset; the accelerator keeps them, with the BQL */
    QTAILQ_HEAD(, GuestMemfdView) views;
    QLIST_HEAD(, RamDiscardListener) listeners;
    QLIST_ENTRY(GuestMemfdBlock) next_sigbus;   /* of guest-memfd-sigbus.c */
    bool guards_access;         /* QEMU must not access private pages */
    bool told;                  /* that a listener could not get all memory */
};

/* guest_memfd_fd: the guest_memfd of a RAM block, all of it or a half, or -1 */
static inline int guest_memfd_fd(const RAMBlock *rb)
{
    return rb->flags & RAM_GUEST_MEMFD_MMAP ? rb->fd : rb->guest_memfd;
}

/**
 * guest_memfd_block_guard_access: from now on, keep QEMU off private pages
 * @block: the block
 *
 * Called with the BQL held.
 */
void guest_memfd_block_guard_access(GuestMemfdBlock *block);

/**
 * guest_memfd_block_check_bound: can guest memory become private?
 * @block: the block that it belongs to
 * @start: guest physical address
 * @size: in bytes
 *
 * Called with the BQL held.
 *
 * Returns: false if it cannot because of its place in the memory map: private
 *     memory is where a memory slot is bound to the guest_memfd
 */
bool guest_memfd_block_check_bound(const GuestMemfdBlock *block, hwaddr start,
                                   uint64_t size);

/**
 * guest_memfd_block_address: where does the guest have memory of a block?
 * @block: the block
 * @offset: in the block, in bytes
 * @address: set to a guest physical address
 *
 * Called with the BQL held.
 *
 * Returns: false if no memory slot shows it
 */
bool guest_memfd_block_address(const GuestMemfdBlock *block, uint64_t offset,
                               hwaddr *address);

/**
 * guest_memfd_block_count: count what a request has done to a block
 * @block: the block
 * @to_private: the direction of the request
 * @pages: how many pages have changed
 * @ns: how long the request has taken, in nanoseconds
 * @error: errno of a request that has failed, or 0
 *
 * Called with guest_memfd_lock() held.
 */
void guest_memfd_block_count(GuestMemfdBlock *block, bool to_private,
                             uint64_t pages, uint64_t ns, int error);

/* The shared half of a split block: system/guest-memfd-shared.c */

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
 * guest_memfd_shared_drop: free the shared half of private memory, or clear it
 * @block: the block; its map says already that the range is private
 * @offset: in the block, in bytes, page aligned
 * @size: in bytes, page aligned
 *
 * The range reads as zeros afterwards.  Memory that could be lost to others is
 * cleared and stays allocated: huge pages with a reservation, and files with
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
 * This is for huge pages that guest_memfd_shared_drop() may have freed: an
 * access to one that cannot be allocated ends in SIGBUS.  Other memory needs
 * nothing.
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

/* Blocks whose pages are converted in place: system/guest-memfd-in-place.c */

/**
 * guest_memfd_in_place_init: can the pages of a block be converted in place?
 * @rb: the block
 * @errp: names the block and what to use instead
 */
bool guest_memfd_in_place_init(RAMBlock *rb, Error **errp);

/* guest_memfd_in_place_free_size: see GuestMemfdBlockOps */
uint64_t guest_memfd_in_place_free_size(RAMBlock *rb);

/* guest_memfd_in_place_set_private: see GuestMemfdMapOps */
int guest_memfd_in_place_set_private(GuestMemfdBlock *block, uint64_t offset,
                                     uint64_t size, bool private,
                                     uint64_t *done);

/* guest_memfd_in_place_balloon: free shared pages */
void guest_memfd_in_place_balloon(RAMBlock *rb, uint64_t offset, uint64_t size);

/* guest_memfd_in_place_set_launched: see guest_memfd_in_place_is_open() */
void guest_memfd_in_place_set_launched(void);

/* Threads that touch private pages: system/guest-memfd-sigbus.c */

/**
 * guest_memfd_sigbus_add: guard the accesses of QEMU's threads to a block
 * @block: the block, with its RAMBlock.host
 *
 * Called with the BQL held, by the main thread.
 */
void guest_memfd_sigbus_add(GuestMemfdBlock *block);

/* guest_memfd_sigbus_remove: undo that, before the memory is unmapped */
void guest_memfd_sigbus_remove(GuestMemfdBlock *block);

/**
 * guest_memfd_sigbus_lock: keep threads from getting scratch pages
 *
 * A spin lock, to be held while memory becomes shared, from before
 * guest_memfd_sigbus_end(): no scratch page can then be in the way of a shared
 * one.  Whoever holds it must not access guest memory.
 */
void guest_memfd_sigbus_lock(void);
void guest_memfd_sigbus_unlock(void);

/**
 * guest_memfd_sigbus_end: take scratch pages away
 * @rb: the block
 * @offset: in the block, in bytes
 * @size: in bytes
 *
 * Called with guest_memfd_sigbus_lock() held.
 *
 * Returns: 0, or -errno, with some of them taken away
 */
int guest_memfd_sigbus_end(const RAMBlock *rb, uint64_t offset, uint64_t size);

/* Others */

/**
 * guest_memfd_query_conversion: what QMP tells about private memory
 * @block: the block
 *
 * Takes guest_memfd_lock().
 */
GuestMemfdConversion *guest_memfd_query_conversion(GuestMemfdBlock *block);

/**
 * guest_memfd_can_undo: can shared memory become private by an undo?
 * @block: the block
 * @offset: in the block, in bytes
 * @size: in bytes, not 0
 *
 * That is so while a request to share it has not ended: it may still fail, or
 * another request may need its pages.  Whoever must not find memory private
 * later on (a dirty log, a migration) has to ask this as well.  Called with the
 * BQL held.
 */
bool guest_memfd_can_undo(GuestMemfdBlock *block, uint64_t offset,
                          uint64_t size);

/* guest_memfd_undo_size: bytes, in all blocks, of which that is true */
uint64_t guest_memfd_undo_size(void);

/**
 * guest_memfd_forget_requests: forget requests that wait to be continued
 *
 * A reset calls this before it gives all memory another state.  Called with the
 * BQL held and no vCPU running.
 */
void guest_memfd_forget_requests(void);

/**
 * guest_memfd_forget_block: as guest_memfd_forget_requests(), for one block
 * @block: a block that is no longer in the memory map
 *
 * vCPUs can run: a request that is in the middle of a long range goes on with
 * what else it converts.  Called with the BQL and guest_memfd_lock() held.
 */
void guest_memfd_forget_block(GuestMemfdBlock *block);

#endif
