/*
 * Which pages of a RAM block are private, and how that changes
 *
 * A GuestMemfdMap owns that state.  Whoever has to follow a change (the
 * accelerator, users of shared memory like VFIO, the half whose contents are no
 * longer needed) is called through the map's operations, in a fixed order.  If
 * one of them fails, the map undoes the change.  This file knows neither KVM
 * nor memory regions, so a unit test can stand in for them.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_MAP_H
#define SYSTEM_GUEST_MEMFD_MAP_H

typedef struct GuestMemfdMap GuestMemfdMap;

/**
 * GuestMemfdMapOps: those who follow a change
 *
 * The map calls them with guest_memfd_lock() held; they must not convert memory
 * themselves.  Offsets and sizes are in bytes and page aligned.  They return 0
 * or -errno.  An operation that fails has changed nothing, except @set_private.
 *
 * @discard: users must let go of the shared memory in this range
 * @populate: users may have the shared memory in this range
 * @acquire: allocate shared memory that @drop may have freed, before pages
 *     become shared.  The range may cover pages that are shared already.  If
 *     @acquire fails, or the change does, the map calls @drop for what stays
 *     private.  Can be NULL
 * @set_private: make the accelerator map private or shared memory.  If it
 *     fails, it sets @done to the number of bytes from @offset on that have
 *     changed, a multiple of the page size; the map changes those back.
 *     -EAGAIN means that the rest can be tried again later
 * @drop: free the private or the shared memory in this range, whose contents
 *     are lost.  The range may cover pages that have nothing left to free.
 *     NULL if a page is the same memory in both states
 */
typedef struct GuestMemfdMapOps {
    void (*discard)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*populate)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*acquire)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*set_private)(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                       bool private, uint64_t *done);
    int (*drop)(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                bool private);
} GuestMemfdMapOps;

struct GuestMemfdMap {
    const GuestMemfdMapOps *ops;
    uint64_t nr_pages;
    uint32_t page_size;
    /*
     * @drop frees shared memory in units of this many bytes, which can be
     * larger than a page.  The owner of the map sets it after
     * guest_memfd_map_init().
     */
    uint64_t free_size;
    bool initially_private;
    /*
     * A bit for each page that is not in its initial state.  The memory comes
     * from calloc(), so it costs nothing until a page is converted.
     */
    unsigned long *flipped;
    uint64_t nr_flipped;
};

/**
 * GuestMemfdPiece: a part of a conversion that lies in one map
 *
 * @map: the map
 * @offset: in bytes, in the map
 * @size: in bytes
 * @changed: guest_memfd_map_convert() without @pending sets this to the number
 *     of pages that have changed
 */
typedef struct GuestMemfdPiece {
    GuestMemfdMap *map;
    uint64_t offset;
    uint64_t size;
    uint64_t changed;
} GuestMemfdPiece;

/*
 * Conversions whose old contents still exist.  The owner can finish them, which
 * frees those contents, or undo them.  The last one can be *in flight*: the
 * accelerator has changed a part of it and has asked to wait with the rest.
 */
typedef struct GuestMemfdPending GuestMemfdPending;

/**
 * GuestMemfdCountFunc: what a conversion has changed in a map
 * @map: the map
 * @pages: the number of pages that have changed, not 0
 * @opaque: as given
 */
typedef void GuestMemfdCountFunc(GuestMemfdMap *map, uint64_t pages,
                                 void *opaque);

/**
 * guest_memfd_lock: protect all maps; not recursive
 *
 * Taken after the BQL and after the accelerator's lock of memory slots.  State
 * changes with both this lock and the BQL held, so that a reader needs only one
 * of them.  A thread that reads waits while another converts: for one part of a
 * request at most, see guest-memfd-convert.c.
 */
void guest_memfd_lock(void);
void guest_memfd_unlock(void);

/**
 * guest_memfd_map_init: make a map for a RAM block
 * @map: the map; its memory is zero
 * @ops: operations
 * @size: of the RAM block, in bytes, a multiple of @page_size
 * @page_size: of the host, in bytes
 * @initially_private: the initial state of all pages
 */
void guest_memfd_map_init(GuestMemfdMap *map, const GuestMemfdMapOps *ops,
                          uint64_t size, uint32_t page_size,
                          bool initially_private);

/* guest_memfd_map_destroy: free what guest_memfd_map_init() has allocated */
void guest_memfd_map_destroy(GuestMemfdMap *map);

/**
 * guest_memfd_map_next_run: find pages in a state
 * @map: the map, locked
 * @offset: where to look from, in bytes; is set to the run's offset
 * @end: where to stop, in bytes
 * @private: the state.  Pages that are in flight count as private
 *
 * The cost is that of the way from @offset to the end of the run.
 *
 * Returns: the size of the run in bytes, 0 if there is none before @end.
 */
uint64_t guest_memfd_map_next_run(const GuestMemfdMap *map, uint64_t *offset,
                                  uint64_t end, bool private);

/**
 * guest_memfd_map_has_private: is any page of a range private?
 * @map: the map
 * @offset: in bytes
 * @size: in bytes, not 0
 *
 * Takes guest_memfd_lock().
 */
bool guest_memfd_map_has_private(const GuestMemfdMap *map, uint64_t offset,
                                 uint64_t size);

/* guest_memfd_map_size: bytes that the map covers */
uint64_t guest_memfd_map_size(const GuestMemfdMap *map);

/* guest_memfd_map_private_size: bytes that are private; the map is locked */
uint64_t guest_memfd_map_private_size(const GuestMemfdMap *map);

/**
 * guest_memfd_map_convert: change the state of memory, all of it or nothing
 * @pieces: what to convert; page aligned, not empty, within their maps
 * @n: number of pieces
 * @to_private: the state to bring all pages into
 * @pending: NULL, or where the conversion is added to, to be finished later
 *
 * Only pages that are not in that state yet are touched.  When they become
 * private: users let go, the accelerator changes, the shared memory is freed.
 * When they become shared: the accelerator changes, users get the memory, the
 * private memory is freed.  Freeing comes last of all, so that nothing is lost
 * when a step fails.  With @pending nothing is freed yet.
 *
 * Called with guest_memfd_lock() held.
 *
 * Returns: the number of pages that changed, or
 *   -EAGAIN          if guest_memfd_pending_in_flight(@pending): go on later by
 *                    guest_memfd_pending_continue()
 *   -ENOTRECOVERABLE a step failed, and so did its undo: stop the VM
 *   -errno           a step failed; all is as it was before
 */
int64_t guest_memfd_map_convert(GuestMemfdPiece *pieces, int n,
                                bool to_private, GuestMemfdPending *pending);

/**
 * guest_memfd_pending_new: an empty list of conversions
 * @to_private: the direction of all of them
 */
GuestMemfdPending *guest_memfd_pending_new(bool to_private);

/* guest_memfd_pending_in_flight: is the last change of @pending in flight? */
bool guest_memfd_pending_in_flight(const GuestMemfdPending *pending);

/**
 * guest_memfd_pending_busy: what does a change in flight wait for?
 * @pending: conversions, of which the last is in flight
 * @offset: set to where in the map the accelerator has asked to wait, in bytes
 *
 * Returns: the map
 */
GuestMemfdMap *guest_memfd_pending_busy(const GuestMemfdPending *pending,
                                        uint64_t *offset);

/**
 * guest_memfd_pending_continue: go on with a change that is in flight
 * @pending: conversions, of which the last is in flight
 *
 * In between, the caller can release guest_memfd_lock() and wait.  Readers are
 * told meanwhile that all pages that change are private, so nobody uses them.
 *
 * Called with guest_memfd_lock() held.
 *
 * Returns: as guest_memfd_map_convert(), for what that was called with; but
 *     when a step fails, pieces before the one in flight stay converted, to be
 *     undone by guest_memfd_pending_undo()
 */
int64_t guest_memfd_pending_continue(GuestMemfdPending *pending);

/**
 * guest_memfd_pending_forget: forget conversions of one map
 * @pending: conversions
 * @map: the map
 *
 * They stay as they are, and neither finishing nor undoing touches that map any
 * more.  Only a change in flight is undone.  Called with guest_memfd_lock()
 * held.
 *
 * Returns: 0, or -ENOTRECOVERABLE if a change in flight could not be undone
 */
int guest_memfd_pending_forget(GuestMemfdPending *pending,
                               const GuestMemfdMap *map);

/**
 * guest_memfd_pending_free: forget conversions; they stay as they are
 * @pending: conversions of which none is in flight, or NULL
 */
void guest_memfd_pending_free(GuestMemfdPending *pending);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestMemfdPending, guest_memfd_pending_free)

/**
 * guest_memfd_pending_overlaps: would a conversion touch what is pending?
 * @pending: conversions that are neither finished nor undone
 * @pieces: what is to be converted
 * @n: number of pieces
 *
 * Such a conversion has to wait: finishing @pending frees the contents that its
 * pages had before.  A conversion of other pages has to wait, too, if their
 * memory is freed together with these: it could free contents that an undo of
 * @pending needs.
 */
bool guest_memfd_pending_overlaps(const GuestMemfdPending *pending,
                                  const GuestMemfdPiece *pieces, int n);

/**
 * guest_memfd_pending_finish: free the contents that a conversion has replaced
 * @pending: conversions, none of them in flight; the first that is not finished
 *     yet is finished
 *
 * A call costs what that conversion costs.  Called with guest_memfd_lock()
 * held, which can be released between two calls.
 *
 * Returns: 1 if more have to be finished; 0 if all are; or -errno.  When the
 *     first one fails, nothing is lost and all can be undone.  When a later one
 *     fails there is no way back (-ENOTRECOVERABLE): the VM has to be stopped.
 */
int guest_memfd_pending_finish(GuestMemfdPending *pending);

/**
 * guest_memfd_pending_undo: take a conversion back
 * @pending: conversions of which none is finished; the last one is undone
 *
 * Its pages get back the state and the contents that they had.  What was
 * written into them in their new state is freed.  Called with
 * guest_memfd_lock() held, which can be released between two calls.
 *
 * Returns: 1 if more have to be undone; 0 if all are; -EAGAIN if something uses
 *     memory that has to become private again: try again; or -ENOTRECOVERABLE.
 */
int guest_memfd_pending_undo(GuestMemfdPending *pending);

/**
 * guest_memfd_pending_count: what all conversions have changed, map by map
 * @pending: conversions
 * @fn: called once for each run of conversions of one map
 * @opaque: for @fn
 */
void guest_memfd_pending_count(const GuestMemfdPending *pending,
                               GuestMemfdCountFunc *fn, void *opaque);

#endif
