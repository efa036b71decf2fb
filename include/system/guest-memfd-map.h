/*
 * Which pages of a RAM block are private, and how that changes
 *
 * A GuestMemfdMap is the one place that knows.  All who have to follow a change
 * (the accelerator, users of shared memory like VFIO, the half that has lost
 * its meaning) are told by its operations, in a fixed order, or the change is
 * undone.  This file knows neither KVM nor memory regions, so that a unit test
 * can stand in for them.
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
 * All are called with guest_memfd_lock() held and must not convert memory
 * themselves.  Offsets and sizes are bytes, page aligned.  They return 0 or
 * -errno, and if they fail they have changed nothing.
 *
 * @discard: users must let go of the shared memory there
 * @populate: users may have the shared memory there
 * @acquire: allocate shared memory where @drop may have freed it, before pages
 *     become shared.  The range may cover pages that are shared already.  If it
 *     fails, or the change does, @drop is called for what stays private.  Can be
 *     NULL
 * @set_private: make the accelerator map private or shared memory there
 * @drop: free the private or the shared memory there, whose contents are lost.
 *     The range may cover pages that have nothing to free any more.
 */
typedef struct GuestMemfdMapOps {
    void (*discard)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*populate)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*acquire)(GuestMemfdMap *map, uint64_t offset, uint64_t size);
    int (*set_private)(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                       bool private);
    int (*drop)(GuestMemfdMap *map, uint64_t offset, uint64_t size,
                bool private);
} GuestMemfdMapOps;

/* Linux's largest is EHWPOISON; of all errors of all Unices this is enough. */
#define GUEST_MEMFD_MAX_ERRNO 133

/* What has happened to a map; see qapi/guest-memfd.json */
typedef struct GuestMemfdMapStats {
    uint64_t conversions[2];    /* to shared, to private */
    uint64_t pages[2];
    uint64_t failures[GUEST_MEMFD_MAX_ERRNO + 1];
    uint64_t ns;                /* spent */
} GuestMemfdMapStats;

struct GuestMemfdMap {
    const GuestMemfdMapOps *ops;
    uint64_t nr_pages;
    uint32_t page_size;
    /*
     * Shared memory is freed by units of so many bytes, which can be larger than
     * a page; set by the owner of the map after guest_memfd_map_init().
     */
    uint64_t free_size;
    bool initially_private;
    /* A bit for each page that is not in its initial state: calloc()ed memory
     * costs nothing until it is written. */
    unsigned long *changed;
    uint64_t nr_changed;
    GuestMemfdMapStats stats;
};

/**
 * GuestMemfdPiece: a part of a conversion that lies in one map
 *
 * @map: the map
 * @offset: in bytes, in the map
 * @size: in bytes
 */
typedef struct GuestMemfdPiece {
    GuestMemfdMap *map;
    uint64_t offset;
    uint64_t size;
} GuestMemfdPiece;

/*
 * Conversions that have been made, but whose old contents are still there: they
 * can be finished, which frees those, or undone
 */
typedef struct GuestMemfdPending GuestMemfdPending;

/**
 * guest_memfd_lock: protects all maps; not recursive
 *
 * Taken after the BQL and after the accelerator's lock of memory slots.
 */
void guest_memfd_lock(void);
void guest_memfd_unlock(void);

/**
 * guest_memfd_map_init: a map for a RAM block
 * @map: the map; its memory is zero
 * @ops: operations
 * @size: of the RAM block, in bytes, a multiple of @page_size
 * @page_size: of the host, in bytes
 * @initially_private: the initial state of all pages
 */
void guest_memfd_map_init(GuestMemfdMap *map, const GuestMemfdMapOps *ops,
                          uint64_t size, uint32_t page_size,
                          bool initially_private);
void guest_memfd_map_destroy(GuestMemfdMap *map);

/**
 * guest_memfd_map_next_run: find pages in a state
 * @map: the map, locked
 * @offset: where to look from, in bytes; is set to the run's offset
 * @end: where to stop, in bytes
 * @private: the state
 *
 * Costs what the way from @offset to the end of the run costs, not more.
 *
 * Returns: the size of the run in bytes, 0 if there is none before @end.
 */
uint64_t guest_memfd_map_next_run(const GuestMemfdMap *map, uint64_t *offset,
                                  uint64_t end, bool private);

/* guest_memfd_map_private_size: bytes that are private; the map is locked */
uint64_t guest_memfd_map_private_size(const GuestMemfdMap *map);

/* guest_memfd_map_count_failure: note a failure, an errno; the map is locked */
void guest_memfd_map_count_failure(GuestMemfdMap *map, int error);

/**
 * guest_memfd_map_convert: change the state of memory, all of it or nothing
 * @pieces: what to convert; page aligned, not empty, within their maps
 * @n: number of pieces
 * @to_private: the state to bring all pages into
 * @pending: NULL, or where the conversion is added to, to be finished later
 *
 * Only pages that are not in that state yet are touched.  When they are
 * converted to private: users let go, the accelerator changes, the shared
 * memory is freed.  To shared: the accelerator changes, users get the memory,
 * the private memory is freed.  What is freed is freed last of all, so that
 * nothing is lost when a step fails.  With @pending nothing is freed yet.
 *
 * Called with guest_memfd_lock() held.
 *
 * Returns: the number of pages that changed, or -errno if a step failed.  Then
 *     all is as it was before, but for -ENOTRECOVERABLE: an undo failed as
 *     well, and the VM has to be stopped.
 */
int64_t guest_memfd_map_convert(const GuestMemfdPiece *pieces, int n,
                                bool to_private, GuestMemfdPending *pending);

/**
 * guest_memfd_pending_new: an empty list of conversions
 * @to_private: the direction of all of them
 */
GuestMemfdPending *guest_memfd_pending_new(bool to_private);

/**
 * guest_memfd_pending_forget: forget conversions of one map; they stay as they
 *     are, and neither finishing nor undoing touches that map any more
 * @pending: conversions
 * @map: the map
 */
void guest_memfd_pending_forget(GuestMemfdPending *pending,
                                const GuestMemfdMap *map);

/* guest_memfd_pending_free: forget conversions; they stay as they are */
void guest_memfd_pending_free(GuestMemfdPending *pending);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GuestMemfdPending, guest_memfd_pending_free)

/**
 * guest_memfd_pending_overlaps: would a conversion touch what is pending?
 * @pending: conversions that are neither finished nor undone
 * @pieces: what is to be converted
 * @n: number of pieces
 *
 * Such a conversion has to wait: when @pending is finished, the contents that
 * its pages had before are freed.  So has one of other pages whose memory is
 * freed together with theirs: it could free contents that @pending may need
 * again.
 */
bool guest_memfd_pending_overlaps(const GuestMemfdPending *pending,
                                  const GuestMemfdPiece *pieces, int n);

/**
 * guest_memfd_pending_finish: free the contents that a conversion has replaced
 * @pending: conversions; the first that is not finished yet is finished
 *
 * A call costs what that conversion costs.  Called with guest_memfd_lock()
 * held, which can be released between two calls.
 *
 * Returns: 1 if more have to be finished; 0 if all are, which is counted in the
 *     statistics of their maps; or -errno.  When the first one fails, nothing is
 *     lost and all can be undone.  When a later one fails there is no way back
 *     (-ENOTRECOVERABLE): the VM has to be stopped.
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
 * Returns: 1 if more have to be undone; 0 if all are; or -ENOTRECOVERABLE.
 */
int guest_memfd_pending_undo(GuestMemfdPending *pending);

#endif
