/*
 * Which pages of a RAM block are private, and how that changes
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
 * for all memory attributes of a VM anyway.
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
    map->changed = bitmap_new(map->nr_pages);
}

void guest_memfd_map_destroy(GuestMemfdMap *map)
{
    g_clear_pointer(&map->changed, g_free);
}

/* The first page from @page on in that state; @end if there is none */
static uint64_t next_page(const unsigned long *changed, uint64_t page,
                          uint64_t end, bool is_changed)
{
    return is_changed ? find_next_bit(changed, end, page)
                      : find_next_zero_bit(changed, end, page);
}

uint64_t guest_memfd_map_next_run(const GuestMemfdMap *map, uint64_t *offset,
                                  uint64_t end, bool private)
{
    const bool is_changed = private != map->initially_private;
    uint64_t last = end / map->page_size;
    uint64_t page = next_page(map->changed, *offset / map->page_size, last,
                              is_changed);

    if (page >= last) {
        return 0;
    }
    *offset = page * map->page_size;
    return next_page(map->changed, page, last, !is_changed) * map->page_size -
           *offset;
}

uint64_t guest_memfd_map_private_size(const GuestMemfdMap *map)
{
    return (map->initially_private ? map->nr_pages - map->nr_changed
                                   : map->nr_changed) * map->page_size;
}

/*
 * What is to change in a piece: pages first to last - 1, and in there the runs
 * that differ from the state that all shall have.
 */
#define CHANGE_FEW 512          /* pages that need no memory of their own */

typedef struct Change {
    GuestMemfdMap *map;
    uint64_t first, last;
    uint64_t pages;
    bool mixed;                 /* several runs; map->changed from first on: */
    unsigned long few[BITS_TO_LONGS(CHANGE_FEW)];
    unsigned long *many;        /* if those are not enough */
    bool before_is_changed;     /* the bits of what is to change */
} Change;

/* Before the first run, for change_next_run() */
static GuestMemfdPiece change_no_run(const Change *c)
{
    return (GuestMemfdPiece) {
        .map = c->map,
        .offset = c->first * c->map->page_size,
    };
}

/* Go from one run to the next.  Returns false if there is none. */
static bool change_next_run(const Change *c, GuestMemfdPiece *run)
{
    const unsigned long *before = c->many ?: c->few;
    const uint64_t n = c->last - c->first;
    uint64_t page = (run->offset + run->size) / c->map->page_size - c->first;
    uint64_t end = n;

    if (c->mixed) {
        page = next_page(before, page, n, c->before_is_changed);
        end = next_page(before, page, n, !c->before_is_changed);
    }
    run->offset = (c->first + page) * c->map->page_size;
    run->size = (end - page) * c->map->page_size;
    return run->size;
}

#define CHANGE_FOREACH_RUN(c, run)                      \
    for (run = change_no_run(c); change_next_run(c, &run);)

static bool change_init(Change *c, const GuestMemfdPiece *piece,
                        bool to_private)
{
    GuestMemfdMap *map = piece->map;
    const uint64_t start = piece->offset / map->page_size;
    const uint64_t end = start + piece->size / map->page_size;
    const bool is_changed = to_private == map->initially_private;
    uint64_t page = next_page(map->changed, start, end, is_changed), n;
    int runs = 0;

    assert(end > start && end <= map->nr_pages);
    *c = (Change) {
        .map = map,
        .first = page,
        .before_is_changed = is_changed,
    };
    for (; page < end; page = next_page(map->changed, page + n, end,
                                        is_changed)) {
        n = next_page(map->changed, page, end, !is_changed) - page;
        c->last = page + n;
        c->pages += n;
        runs++;
    }
    if (runs > 1) {
        const uint64_t pages = c->last - c->first;

        c->mixed = true;
        c->many = pages > CHANGE_FEW ? bitmap_new(pages) : NULL;
        bitmap_copy_with_src_offset(c->many ?: c->few, map->changed, c->first,
                                    pages);
    }
    return runs;
}

/* All runs that begin before @end */
static void change_discard(const Change *c, uint64_t end)
{
    GuestMemfdPiece run;

    CHANGE_FOREACH_RUN(c, run) {
        if (run.offset >= end) {
            return;
        }
        c->map->ops->discard(c->map, run.offset, run.size);
    }
}

static int change_populate(const Change *c)
{
    GuestMemfdPiece run;

    CHANGE_FOREACH_RUN(c, run) {
        int ret = c->map->ops->populate(c->map, run.offset, run.size);

        if (ret) {
            change_discard(c, run.offset);
            return ret;
        }
    }
    return 0;
}

/* The accelerator and the map; in between is nothing but that state. */
static int change_apply(const Change *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t n = c->last - c->first;
    int ret = map->ops->set_private(map, c->first * map->page_size,
                                    n * map->page_size, to_private);

    if (ret) {
        return ret;
    }
    if (to_private == map->initially_private) {
        bitmap_clear(map->changed, c->first, n);
        map->nr_changed -= c->pages;
    } else {
        bitmap_set(map->changed, c->first, n);
        map->nr_changed += c->pages;
    }
    return 0;
}

static bool change_revert(const Change *c, bool to_private)
{
    const uint64_t page_size = c->map->page_size;
    GuestMemfdPiece run;

    CHANGE_FOREACH_RUN(c, run) {
        Change one = {
            .map = c->map,
            .first = run.offset / page_size,
            .last = (run.offset + run.size) / page_size,
            .pages = run.size / page_size,
        };

        if (change_apply(&one, !to_private)) {
            return false;
        }
    }
    return true;
}

/*
 * Make the change but free nothing: the contents of both halves survive until
 * change_finish(), so it can still be undone.
 */
static int change_begin(const Change *c, bool to_private)
{
    int ret;

    if (to_private) {
        change_discard(c, UINT64_MAX);
    }
    ret = change_apply(c, to_private);
    if (ret) {
        if (to_private && change_populate(c)) {
            return -ENOTRECOVERABLE;
        }
        return ret;
    }
    if (!to_private) {
        ret = change_populate(c);
        if (ret && !change_revert(c, to_private)) {
            return -ENOTRECOVERABLE;
        }
    }
    return ret;
}

/*
 * As change_begin(), but allocate shared memory before pages become shared,
 * where change_finish() may have freed it.  If they stay private, free it again.
 */
static int change_acquire_begin(const Change *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t size = (c->last - c->first) * map->page_size;
    GuestMemfdPiece run;
    int ret;

    if (to_private || !map->ops->acquire) {
        return change_begin(c, to_private);
    }
    ret = map->ops->acquire(map, c->first * map->page_size, size) ?:
          change_begin(c, to_private);
    if (ret && ret != -ENOTRECOVERABLE) {
        CHANGE_FOREACH_RUN(c, run) {
            map->ops->drop(map, run.offset, run.size, false);
        }
    }
    return ret;
}

/*
 * Free the half that is not in use any more.  Between change_begin() and here a
 * reset may have changed the state: only pages that are still in it count.
 */
static int change_finish(const Change *c, bool to_private)
{
    GuestMemfdMap *map = c->map;
    const uint64_t end = c->last * map->page_size;
    uint64_t offset = c->first * map->page_size, size;
    int ret = 0;

    for (; !ret && (size = guest_memfd_map_next_run(map, &offset, end,
                                                    to_private));
         offset += size) {
        ret = map->ops->drop(map, offset, size, !to_private);
    }
    return ret;
}

/*
 * Undo change_begin(): the pages get back their state and, as nothing was freed,
 * their contents.  What vCPUs have written into them meanwhile is freed; where
 * that fails, it costs memory until the next conversion, and no more.
 */
static int change_undo(const Change *c, bool to_private)
{
    GuestMemfdPiece run;

    CHANGE_FOREACH_RUN(c, run) {
        Change back;
        int ret;

        /* Only pages that are still in that state, as in change_finish() */
        if (!change_init(&back, &run, !to_private)) {
            continue;
        }
        ret = change_begin(&back, !to_private);
        if (!ret) {
            change_finish(&back, !to_private);
        }
        g_free(back.many);
        if (ret) {
            return -ENOTRECOVERABLE;
        }
    }
    return 0;
}

static void change_count(const Change *c, bool to_private, bool same_request)
{
    GuestMemfdMapStats *stats = &c->map->stats;

    stats->conversions[to_private] += !same_request;
    stats->pages[to_private] += c->pages;
}

/* Bytes of one map that the changes of a request lie in */
typedef struct Extent {
    const GuestMemfdMap *map;
    uint64_t start, end;
} Extent;

struct GuestMemfdPending {
    bool to_private;
    GArray *changes;            /* Change, in the order in which they were made */
    GArray *extents;            /* Extent, of all of them */
    guint finished;             /* so many of them, from the first one on */
};

static void change_clear(void *opaque)
{
    Change *c = opaque;

    g_free(c->many);
}

GuestMemfdPending *guest_memfd_pending_new(bool to_private)
{
    GuestMemfdPending *pending = g_new0(GuestMemfdPending, 1);

    pending->to_private = to_private;
    pending->changes = g_array_new(false, false, sizeof(Change));
    g_array_set_clear_func(pending->changes, change_clear);
    pending->extents = g_array_new(false, false, sizeof(Extent));
    return pending;
}

void guest_memfd_pending_free(GuestMemfdPending *pending)
{
    if (pending) {
        g_array_unref(pending->changes);
        g_array_unref(pending->extents);
        g_free(pending);
    }
}

void guest_memfd_pending_forget(GuestMemfdPending *pending,
                                const GuestMemfdMap *map)
{
    guint i;

    for (i = 0; i < pending->changes->len; i++) {
        Change *c = &g_array_index(pending->changes, Change, i);

        if (c->map == map) {
            c->last = c->first;
            c->pages = 0;
        }
    }
}

static void pending_add(GuestMemfdPending *pending, const Change *c)
{
    const Extent new = {
        .map = c->map,
        .start = c->first * c->map->page_size,
        .end = c->last * c->map->page_size,
    };
    Extent *last = pending->extents->len ?
                   &g_array_index(pending->extents, Extent,
                                  pending->extents->len - 1) : NULL;

    g_array_append_val(pending->changes, *c);
    /* A long range is converted from its start to its end, part by part. */
    if (last && last->map == new.map && last->end <= new.start) {
        last->end = new.end;
    } else {
        g_array_append_val(pending->extents, new);
    }
}

bool guest_memfd_pending_overlaps(const GuestMemfdPending *pending,
                                  const GuestMemfdPiece *pieces, int n)
{
    guint e;
    int i;

    for (i = 0; i < n; i++) {
        for (e = 0; e < pending->extents->len; e++) {
            const Extent *extent = &g_array_index(pending->extents, Extent, e);

            const GuestMemfdMap *map = pieces[i].map;

            if (extent->map == map &&
                QEMU_ALIGN_DOWN(pieces[i].offset, map->free_size) <
                extent->end &&
                extent->start <
                QEMU_ALIGN_UP(pieces[i].offset + pieces[i].size,
                              map->free_size)) {
                return true;
            }
        }
    }
    return false;
}

/* All pieces, or none: see guest_memfd_map_convert() */
static int64_t convert(const GuestMemfdPiece *pieces, Change *changes, int n,
                       bool to_private, GuestMemfdPending *pending)
{
    int64_t pages = 0;
    int i, done = 0, ret = 0;

    for (i = 0; i < n; i++) {
        /*
         * Compute each change only now: pieces may alias, and an earlier one
         * may have converted these pages.
         */
        if (!change_init(&changes[done], &pieces[i], to_private)) {
            continue;
        }
        ret = change_acquire_begin(&changes[done], to_private);
        if (ret) {
            g_free(changes[done].many);
            goto undo;
        }
        pages += changes[done].pages;
        done++;
    }
    for (i = 0; i < done && !pending; i++) {
        ret = change_finish(&changes[i], to_private);
        if (ret && i == 0) {
            goto undo;
        } else if (ret) {
            /* The contents of those before are gone: there is no way back. */
            pages = -ENOTRECOVERABLE;
            break;
        }
    }
    for (i = 0; i < done; i++) {
        if (pending) {
            pending_add(pending, &changes[i]);
        } else {
            change_count(&changes[i], to_private, false);
            g_free(changes[i].many);
        }
    }
    return pages;

undo:
    while (done--) {
        ret = change_undo(&changes[done], to_private) ?: ret;
        g_free(changes[done].many);
    }
    return ret;
}

void guest_memfd_map_count_failure(GuestMemfdMap *map, int error)
{
    map->stats.failures[MIN(error, GUEST_MEMFD_MAX_ERRNO)]++;
}

int64_t guest_memfd_map_convert(const GuestMemfdPiece *pieces, int n,
                                bool to_private, GuestMemfdPending *pending)
{
    Change one;
    g_autofree Change *many = n > 1 ? g_new(Change, n) : NULL;

    return convert(pieces, many ?: &one, n, to_private, pending);
}

/* Conversions count by map, however many parts a long request has had. */
static void pending_count(GuestMemfdPending *pending)
{
    const GuestMemfdMap *map = NULL;
    guint i;

    for (i = 0; i < pending->changes->len; i++) {
        const Change *c = &g_array_index(pending->changes, Change, i);

        change_count(c, pending->to_private, c->map == map);
        map = c->map;
    }
}

int guest_memfd_pending_finish(GuestMemfdPending *pending)
{
    int ret;

    if (pending->finished < pending->changes->len) {
        ret = change_finish(&g_array_index(pending->changes, Change,
                                           pending->finished),
                            pending->to_private);
        if (ret) {
            return pending->finished ? -ENOTRECOVERABLE : ret;
        }
        pending->finished++;
    }
    if (pending->finished < pending->changes->len) {
        return 1;
    }
    pending_count(pending);
    return 0;
}

int guest_memfd_pending_undo(GuestMemfdPending *pending)
{
    const guint last = pending->changes->len - 1;
    int ret;

    assert(!pending->finished);
    if (!pending->changes->len) {
        return 0;
    }
    ret = change_undo(&g_array_index(pending->changes, Change, last),
                      pending->to_private);
    if (ret) {
        return ret;
    }
    g_array_set_size(pending->changes, last);
    return last > 0;
}
