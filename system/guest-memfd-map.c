/*
 * Which pages of a RAM block are private, and how that changes
 *
 * A MapChange is what has to change in one piece of a conversion.  It goes
 * through three steps: map_change_begin() changes the state, of the accelerator
 * and of the map, and tells users; it can be undone.  map_change_finish() then
 * frees the half that is no longer used.  A GuestMemfdPending holds changes
 * between these two steps.
 *
 * Copyright (c) 2026 The qemu-gmem developers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/thread.h"
#include "system/guest-memfd-map.h"

/*
 * One lock for all maps: a request may cover several of them, and KVM takes one
 * lock for all memory attributes of a VM anyway.
 */
static QemuMutex guest_memfd_mutex;

static void __attribute__((constructor)) guest_memfd_init_mutex(void)
{
    qemu_mutex_init(&guest_memfd_mutex);
}

void guest_memfd_lock(void)
{
    qemu_mutex_lock(&guest_memfd_mutex);
}

void guest_memfd_unlock(void)
{
    qemu_mutex_unlock(&guest_memfd_mutex);
}

void guest_memfd_map_init(GuestMemfdMap *map, const GuestMemfdMapOps *ops,
                          uint64_t size, uint32_t page_size,
                          bool initially_private)
{
    assert(QEMU_IS_ALIGNED(size, page_size));
    map->ops = ops;
    map->page_size = page_size;
    map->free_size = page_size;
    map->nr_pages = size / page_size;
    map->initially_private = initially_private;
    map->flipped = bitmap_new(map->nr_pages);
}

void guest_memfd_map_destroy(GuestMemfdMap *map)
{
    g_clear_pointer(&map->flipped, g_free);
}

/* The first page from @page on whose bit is @set; @end if there is none */
static uint64_t map_next_page(const unsigned long *bits, uint64_t page,
                              uint64_t end, bool set)
{
    return set ? find_next_bit(bits, end, page)
               : find_next_zero_bit(bits, end, page);
}

/* The bit in map->flipped of a page in this state */
static bool map_bit(const GuestMemfdMap *map, bool private)
{
    return private != map->initially_private;
}

uint64_t guest_memfd_map_next_run(const GuestMemfdMap *map, uint64_t *offset,
                                  uint64_t end, bool private)
{
    const bool bit = map_bit(map, private);
    uint64_t last = end / map->page_size;
    uint64_t page = map_next_page(map->flipped, *offset / map->page_size, last,
                                  bit);

    if (page >= last) {
        return 0;
    }
    *offset = page * map->page_size;
    return map_next_page(map->flipped, page, last, !bit) * map->page_size -
           *offset;
}

bool guest_memfd_map_has_private(const GuestMemfdMap *map, uint64_t offset,
                                 uint64_t size)
{
    const uint64_t end = QEMU_ALIGN_UP(offset + size, map->page_size);
    uint64_t run;

    offset = QEMU_ALIGN_DOWN(offset, map->page_size);
    guest_memfd_lock();
    run = guest_memfd_map_next_run(map, &offset, end, true);
    guest_memfd_unlock();
    return run != 0;
}

uint64_t guest_memfd_map_size(const GuestMemfdMap *map)
{
    return map->nr_pages * map->page_size;
}

uint64_t guest_memfd_map_private_size(const GuestMemfdMap *map)
{
    return (map->initially_private ? map->nr_pages - map->nr_flipped
                                   : map->nr_flipped) * map->page_size;
}

/*
 * A MapChange of at most this many pages keeps its bits within itself: 512
 * pages are 2 MiB, the largest request that guests make often.  Can be changed
 * at any time.
 */
#define MAP_CHANGE_FEW 512

/*
 * What has to change in a piece.  The pages from @first to @last - 1 contain
 * runs of pages that do not have the wanted state yet.
 */
typedef struct MapChange {
    GuestMemfdMap *map;
    uint64_t first, last;
    uint64_t pages;             /* in all runs */
    uint64_t applied;           /* the accelerator has done so many */
    bool in_flight;             /* it has asked to wait with the others */
    bool flipped;               /* the map says so already */
    bool mixed;                 /* there are several runs */
    bool bit;                   /* the runs' bit, before the change */
    /* If @mixed: the map's bits from @first on before the change */
    unsigned long few[BITS_TO_LONGS(MAP_CHANGE_FEW)];
    unsigned long *many;        /* instead of @few, if that is too small */
} MapChange;

/* The place before the first run, for map_change_next_run() */
static GuestMemfdPiece map_change_no_run(const MapChange *c)
{
    return (GuestMemfdPiece) {
        .map = c->map,
        .offset = c->first * c->map->page_size,
    };
}

/* Go from one run to the next.  Returns false if there is none. */
static bool map_change_next_run(const MapChange *c, GuestMemfdPiece *run)
{
    const unsigned long *before = c->many ?: c->few;
    const uint64_t n = c->last - c->first;
    uint64_t page = (run->offset + run->size) / c->map->page_size - c->first;
    uint64_t end = n;

    if (c->mixed) {
        page = map_next_page(before, page, n, c->bit);
        end = map_next_page(before, page, n, !c->bit);
    }
    run->offset = (c->first + page) * c->map->page_size;
    run->size = (end - page) * c->map->page_size;
    return run->size;
}

#define MAP_CHANGE_FOREACH_RUN(c, run) \
    for (run = map_change_no_run(c); map_change_next_run(c, &run);)

/* Returns false if there is nothing to change. */
static bool map_change_init(MapChange *c, const GuestMemfdPiece *piece,
                            bool to_private)
{
    GuestMemfdMap *map = piece->map;
    const uint64_t start = piece->offset / map->page_size;
    const uint64_t end = start + piece->size / map->page_size;
    const bool bit = map_bit(map, !to_private);
    uint64_t page = map_next_page(map->flipped, start, end, bit), n;
    int runs = 0;

    assert(end > start && end <= map->nr_pages);
    c->map = map;
    c->first = c->last = page;
    c->pages = 0;
    c->applied = 0;
    c->in_flight = false;
    c->flipped = false;
    c->mixed = false;
    c->bit = bit;
    c->many = NULL;
    for (; page < end; page = map_next_page(map->flipped, page + n, end, bit)) {
        n = map_next_page(map->flipped, page, end, !bit) - page;
        c->last = page + n;
        c->pages += n;
        runs++;
    }
    if (runs > 1) {
        const uint64_t pages = c->last - c->first;

        c->mixed = true;
        c->many = pages > MAP_CHANGE_FEW ? bitmap_new(pages) : NULL;
        bitmap_copy_with_src_offset(c->many ?: c->few, map->flipped, c->first,
                                    pages);
    }
    return runs;
}

static void map_change_destroy(MapChange *c)
{
    g_free(c->many);
}

/* Have the map say that all pages are private, or shared. */
static void map_change_flip(MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;

    if (map_bit(map, to_private)) {
        bitmap_set(map->flipped, c->first, c->last - c->first);
        map->nr_flipped += c->pages;
    } else {
        bitmap_clear(map->flipped, c->first, c->last - c->first);
        map->nr_flipped -= c->pages;
    }
    c->flipped = true;
}

/* Undo map_change_flip(). */
static void map_change_unflip(MapChange *c)
{
    GuestMemfdMap *map = c->map;
    GuestMemfdPiece run;

    MAP_CHANGE_FOREACH_RUN(c, run) {
        const uint64_t page = run.offset / map->page_size;
        const uint64_t n = run.size / map->page_size;

        if (c->bit) {
            bitmap_set(map->flipped, page, n);
            map->nr_flipped += n;
        } else {
            bitmap_clear(map->flipped, page, n);
            map->nr_flipped -= n;
        }
    }
    c->flipped = false;
}

/* Tell users of all runs that begin before @end. */
static void map_change_discard(const MapChange *c, uint64_t end)
{
    GuestMemfdPiece run;

    MAP_CHANGE_FOREACH_RUN(c, run) {
        if (run.offset >= end) {
            return;
        }
        c->map->ops->discard(c->map, run.offset, run.size);
    }
}

static int map_change_populate(const MapChange *c)
{
    GuestMemfdPiece run;

    MAP_CHANGE_FOREACH_RUN(c, run) {
        int ret = c->map->ops->populate(c->map, run.offset, run.size);

        if (ret) {
            map_change_discard(c, run.offset);
            return ret;
        }
    }
    return 0;
}

/*
 * Change the state back, as far as the accelerator has changed it.  Pages
 * between the runs had the new state before: the accelerator keeps it there.
 */
static bool map_change_revert(MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t end = (c->first + c->applied) * map->page_size;
    GuestMemfdPiece run;

    MAP_CHANGE_FOREACH_RUN(c, run) {
        uint64_t done;

        if (run.offset >= end) {
            break;
        }
        if (map->ops->set_private(map, run.offset,
                                  MIN(run.size, end - run.offset), !to_private,
                                  &done)) {
            return false;
        }
    }
    c->applied = 0;
    if (c->flipped) {
        map_change_unflip(c);
    }
    return true;
}

/*
 * Have the accelerator change what it has not changed yet.  Between its change
 * and that of the map nobody can look, as the caller holds the lock.
 *
 * A change in flight is the exception: after -EAGAIN, the map says "private"
 * for all of its pages, whatever the direction, so that no reader uses memory
 * whose state is open.
 */
static int map_change_apply(MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t from = c->first + c->applied;
    uint64_t done = 0;
    int ret = map->ops->set_private(map, from * map->page_size,
                                    (c->last - from) * map->page_size,
                                    to_private, &done);

    if (ret) {
        c->applied += done / map->page_size;
    } else {
        c->applied = c->last - c->first;
    }
    c->in_flight = ret == -EAGAIN;
    if ((!ret || (c->in_flight && to_private)) && !c->flipped) {
        map_change_flip(c, to_private);
    }
    return ret;
}

/* Undo a change that map_change_apply() has not completed. */
static int map_change_abort(MapChange *c, bool to_private)
{
    if (!map_change_revert(c, to_private) ||
        (to_private && map_change_populate(c))) {
        return -ENOTRECOVERABLE;
    }
    return 0;
}

/* The rest of map_change_begin(), after a wait if the change is in flight */
static int map_change_continue(MapChange *c, bool to_private)
{
    int ret = map_change_apply(c, to_private);

    if (c->in_flight) {
        return ret;
    }
    if (ret) {
        return map_change_abort(c, to_private) ?: ret;
    }
    if (!to_private) {
        ret = map_change_populate(c);
        if (ret && !map_change_revert(c, to_private)) {
            return -ENOTRECOVERABLE;
        }
    }
    return ret;
}

/*
 * Make the change but free nothing: the contents of both halves survive until
 * map_change_finish(), so it can still be undone.
 *
 * Returns 0, or -errno; then all is as before, unless the change is in flight.
 */
static int map_change_begin(MapChange *c, bool to_private)
{
    if (to_private) {
        map_change_discard(c, UINT64_MAX);
    }
    return map_change_continue(c, to_private);
}

/* Allocate shared memory for pages that become shared, where it may be free. */
static int map_change_acquire(const MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;

    if (to_private || !map->ops->acquire) {
        return 0;
    }
    return map->ops->acquire(map, c->first * map->page_size,
                             (c->last - c->first) * map->page_size);
}

/* Free again what map_change_acquire() has allocated: pages stay private. */
static void map_change_release(const MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    GuestMemfdPiece run;

    if (to_private || !map->ops->acquire) {
        return;
    }
    MAP_CHANGE_FOREACH_RUN(c, run) {
        map->ops->drop(map, run.offset, run.size, false);
    }
}

/* map_change_begin(), with the memory that it needs.  Returns the same. */
static int map_change_make(MapChange *c, bool to_private)
{
    int ret = map_change_acquire(c, to_private) ?:
              map_change_begin(c, to_private);

    if (ret && !c->in_flight && ret != -ENOTRECOVERABLE) {
        map_change_release(c, to_private);
    }
    return ret;
}

/* Undo a change in flight, which nobody will continue. */
static int map_change_cancel(MapChange *c, bool to_private)
{
    int ret = map_change_abort(c, to_private);

    if (!ret) {
        map_change_release(c, to_private);
    }
    return ret;
}

/*
 * Free the half that is no longer used.  A reset can have changed the state
 * since map_change_begin(): only pages that still have the new state count.
 */
static int map_change_finish(const MapChange *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t end = c->last * map->page_size;
    uint64_t offset = c->first * map->page_size, size;

    if (!map->ops->drop) {
        return 0;
    }
    while ((size = guest_memfd_map_next_run(map, &offset, end, to_private))) {
        int ret = map->ops->drop(map, offset, size, !to_private);

        if (ret) {
            return ret;
        }
        offset += size;
    }
    return 0;
}

/*
 * Undo map_change_begin(): the pages get back their state and, as nothing was
 * freed, their contents.  What vCPUs have written into them meanwhile is freed;
 * where that fails, it costs memory until the next conversion, and no more.
 *
 * Returns 0; -EAGAIN if something uses shared memory that has to become private
 * again, so that this has to be called once more; or -ENOTRECOVERABLE.
 */
static int map_change_undo(const MapChange *c, bool to_private)
{
    GuestMemfdPiece run;

    MAP_CHANGE_FOREACH_RUN(c, run) {
        MapChange back;
        int ret;

        /* Only pages that still have the new state: see map_change_finish() */
        if (!map_change_init(&back, &run, !to_private)) {
            continue;
        }
        ret = map_change_begin(&back, !to_private);
        if (!ret) {
            map_change_finish(&back, !to_private);
        } else if (back.in_flight) {
            ret = map_change_cancel(&back, !to_private) ?: ret;
        }
        map_change_destroy(&back);
        if (ret) {
            return ret == -EAGAIN ? ret : -ENOTRECOVERABLE;
        }
    }
    return 0;
}

/* The range of one map that the changes of a request lie in, in bytes */
typedef struct MapExtent {
    const GuestMemfdMap *map;
    uint64_t start, end;
} MapExtent;

struct GuestMemfdPending {
    bool to_private;
    GArray *changes;            /* MapChange, in the order they were made in */
    GArray *extents;            /* MapExtent, of all changes */
    guint finished;             /* so many changes, from the first one on */

    /* If the last change is in flight */
    int64_t pages;              /* before it, in the same call */
    GuestMemfdPiece *left;      /* pieces behind it */
    int nr_left;
};

static void map_pending_clear(void *opaque)
{
    map_change_destroy(opaque);
}

GuestMemfdPending *guest_memfd_pending_new(bool to_private)
{
    GuestMemfdPending *pending = g_new0(GuestMemfdPending, 1);

    pending->to_private = to_private;
    pending->changes = g_array_new(false, false, sizeof(MapChange));
    g_array_set_clear_func(pending->changes, map_pending_clear);
    pending->extents = g_array_new(false, false, sizeof(MapExtent));
    return pending;
}

static MapChange *map_pending_change(const GuestMemfdPending *pending, guint i)
{
    return &g_array_index(pending->changes, MapChange, i);
}

static MapChange *map_pending_last(const GuestMemfdPending *pending)
{
    return map_pending_change(pending, pending->changes->len - 1);
}

bool guest_memfd_pending_in_flight(const GuestMemfdPending *pending)
{
    return pending->changes->len && map_pending_last(pending)->in_flight;
}

void guest_memfd_pending_free(GuestMemfdPending *pending)
{
    if (pending) {
        assert(!guest_memfd_pending_in_flight(pending));
        g_array_unref(pending->changes);
        g_array_unref(pending->extents);
        g_free(pending);
    }
}

static void map_pending_add(GuestMemfdPending *pending, const MapChange *c)
{
    const MapExtent new = {
        .map = c->map,
        .start = c->first * c->map->page_size,
        .end = c->last * c->map->page_size,
    };
    MapExtent *last = pending->extents->len ?
                      &g_array_index(pending->extents, MapExtent,
                                     pending->extents->len - 1) : NULL;

    g_array_append_val(pending->changes, *c);
    /* A long range is converted from its start to its end, part by part. */
    if (last && last->map == new.map && last->end <= new.start) {
        last->end = new.end;
    } else {
        g_array_append_val(pending->extents, new);
    }
}

static void map_pending_remove_last(GuestMemfdPending *pending)
{
    g_array_set_size(pending->changes, pending->changes->len - 1);
}

/* What to go on with behind the last change, which is in flight */
static void map_pending_set_left(GuestMemfdPending *pending, int64_t pages,
                                 const GuestMemfdPiece *left, int nr_left)
{
    pending->pages = pages;
    pending->left = g_memdup2(left, nr_left * sizeof(*left));
    pending->nr_left = nr_left;
}

/* Undo the change in flight; the pieces behind it will not be converted. */
static int map_pending_cancel(GuestMemfdPending *pending)
{
    int ret = map_change_cancel(map_pending_last(pending), pending->to_private);

    g_clear_pointer(&pending->left, g_free);
    map_pending_remove_last(pending);
    return ret;
}

int guest_memfd_pending_forget(GuestMemfdPending *pending,
                               const GuestMemfdMap *map)
{
    int ret = 0;
    guint i;

    if (guest_memfd_pending_in_flight(pending) &&
        map_pending_last(pending)->map == map) {
        ret = map_pending_cancel(pending);
    }
    for (i = 0; i < pending->changes->len; i++) {
        MapChange *c = map_pending_change(pending, i);

        if (c->map == map) {
            c->last = c->first;
            c->pages = 0;
        }
    }
    return ret;
}

bool guest_memfd_pending_overlaps(const GuestMemfdPending *pending,
                                  const GuestMemfdPiece *pieces, int n)
{
    guint e;
    int i;

    for (i = 0; i < n; i++) {
        const GuestMemfdMap *map = pieces[i].map;
        uint64_t start = QEMU_ALIGN_DOWN(pieces[i].offset, map->free_size);
        uint64_t end = QEMU_ALIGN_UP(pieces[i].offset + pieces[i].size,
                                     map->free_size);

        for (e = 0; e < pending->extents->len; e++) {
            const MapExtent *extent = &g_array_index(pending->extents,
                                                     MapExtent, e);

            if (extent->map == map && start < extent->end &&
                extent->start < end) {
                return true;
            }
        }
    }
    return false;
}

/*
 * guest_memfd_map_convert() with @pending.  Changes that are made are added to
 * it; if a step fails, those of this call are undone.
 */
static int64_t map_convert_pending(const GuestMemfdPiece *pieces, int n,
                                   bool to_private, GuestMemfdPending *pending)
{
    const guint before = pending->changes->len;
    int64_t pages = 0;
    int i, ret;

    for (i = 0; i < n; i++) {
        MapChange c;

        /*
         * Compute each change only now: pieces may alias, and an earlier one
         * may have converted these pages.
         */
        if (!map_change_init(&c, &pieces[i], to_private)) {
            continue;
        }
        ret = map_change_make(&c, to_private);
        if (!ret || c.in_flight) {
            map_pending_add(pending, &c);
        }
        if (c.in_flight) {
            map_pending_set_left(pending, pages, pieces + i + 1, n - i - 1);
            return ret;
        }
        if (ret) {
            map_change_destroy(&c);
            goto undo;
        }
        pages += c.pages;
    }
    return pages;

undo:
    while (pending->changes->len > before) {
        /* Nobody could use the memory meanwhile, so -EAGAIN is a failure. */
        if (map_change_undo(map_pending_last(pending), to_private)) {
            ret = -ENOTRECOVERABLE;
        }
        map_pending_remove_last(pending);
    }
    return ret;
}

GuestMemfdMap *guest_memfd_pending_busy(const GuestMemfdPending *pending,
                                        uint64_t *offset)
{
    const MapChange *c = map_pending_last(pending);

    *offset = (c->first + c->applied) * c->map->page_size;
    return c->map;
}

int64_t guest_memfd_pending_continue(GuestMemfdPending *pending)
{
    MapChange *c = map_pending_last(pending);
    g_autofree GuestMemfdPiece *left = NULL;
    int64_t pages = pending->pages, ret;

    assert(guest_memfd_pending_in_flight(pending));
    ret = map_change_continue(c, pending->to_private);
    if (c->in_flight) {
        return ret;
    }
    left = g_steal_pointer(&pending->left);
    if (ret) {
        if (ret != -ENOTRECOVERABLE) {
            map_change_release(c, pending->to_private);
        }
        map_pending_remove_last(pending);
        return ret;
    }
    pages += c->pages;
    ret = map_convert_pending(left, pending->nr_left, pending->to_private,
                              pending);
    if (guest_memfd_pending_in_flight(pending)) {
        pending->pages += pages;
    }
    return ret < 0 ? ret : pages + ret;
}

/* guest_memfd_map_convert() of one piece without @pending: nearly every call */
static int64_t map_convert_one(GuestMemfdPiece *piece, bool to_private)
{
    MapChange c;
    int64_t ret;

    piece->changed = 0;
    if (!map_change_init(&c, piece, to_private)) {
        return 0;
    }
    ret = map_change_make(&c, to_private);
    if (c.in_flight) {
        ret = map_change_cancel(&c, to_private) ?: ret;
    }
    if (!ret) {
        ret = map_change_finish(&c, to_private);
        if (ret) {
            ret = map_change_undo(&c, to_private) ?: ret;
        }
    }
    if (!ret) {
        ret = piece->changed = c.pages;
    }
    map_change_destroy(&c);
    return ret;
}

static void map_convert_count(GuestMemfdMap *map, uint64_t pages, void *opaque)
{
    GuestMemfdPiece *piece = opaque;

    /* Several pieces of one map: the first one has the pages of all. */
    for (; piece->map != map || piece->changed; piece++) {
        continue;
    }
    piece->changed = pages;
}

int64_t guest_memfd_map_convert(GuestMemfdPiece *pieces, int n,
                                bool to_private, GuestMemfdPending *pending)
{
    g_autoptr(GuestMemfdPending) own = NULL;
    int64_t pages;
    int i, ret;

    if (pending) {
        return map_convert_pending(pieces, n, to_private, pending);
    }
    if (n == 1) {
        return map_convert_one(pieces, to_private);
    }

    own = guest_memfd_pending_new(to_private);
    for (i = 0; i < n; i++) {
        pieces[i].changed = 0;
    }
    pages = map_convert_pending(pieces, n, to_private, own);
    ret = guest_memfd_pending_in_flight(own) ? -EAGAIN : 0;
    if (pages < 0 && !ret) {
        return pages;
    }
    while (!ret && (ret = guest_memfd_pending_finish(own)) == 1) {
        ret = 0;
    }
    if (ret && ret != -ENOTRECOVERABLE) {
        int undone;

        while ((undone = guest_memfd_pending_undo(own)) == 1) {
            continue;
        }
        return undone ? -ENOTRECOVERABLE : ret;
    }
    if (!ret) {
        guest_memfd_pending_count(own, map_convert_count, pieces);
    }
    return ret ?: pages;
}

/* Several changes of one map count as one conversion. */
void guest_memfd_pending_count(const GuestMemfdPending *pending,
                               GuestMemfdCountFunc *fn, void *opaque)
{
    GuestMemfdMap *map = NULL;
    uint64_t pages = 0;
    guint i;

    for (i = 0; i < pending->changes->len; i++) {
        const MapChange *c = map_pending_change(pending, i);

        if (c->map != map && pages) {
            fn(map, pages, opaque);
            pages = 0;
        }
        map = c->map;
        pages += c->pages;
    }
    if (pages) {
        fn(map, pages, opaque);
    }
}

int guest_memfd_pending_finish(GuestMemfdPending *pending)
{
    assert(!guest_memfd_pending_in_flight(pending));
    if (pending->finished < pending->changes->len) {
        MapChange *c = map_pending_change(pending, pending->finished);
        int ret = map_change_finish(c, pending->to_private);

        if (ret) {
            /* The contents of those before are gone: there is no way back. */
            return pending->finished ? -ENOTRECOVERABLE : ret;
        }
        pending->finished++;
    }
    return pending->finished < pending->changes->len;
}

int guest_memfd_pending_undo(GuestMemfdPending *pending)
{
    int ret;

    assert(!pending->finished);
    if (!pending->changes->len) {
        return 0;
    }
    if (guest_memfd_pending_in_flight(pending)) {
        ret = map_pending_cancel(pending);
    } else {
        ret = map_change_undo(map_pending_last(pending), pending->to_private);
        if (!ret) {
            map_pending_remove_last(pending);
        }
    }
    return ret ?: pending->changes->len > 0;
}
