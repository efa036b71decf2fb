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

/* The next run to change from @page, counted from first; 0 if there is none */
static uint64_t change_next_run(const Change *c, uint64_t *page)
{
    const unsigned long *before = c->many ?: c->few;
    const uint64_t n = c->last - c->first;

    if (!c->mixed) {
        return *page == 0 ? n : 0;
    }
    *page = next_page(before, *page, n, c->before_is_changed);
    return *page >= n ? 0 : next_page(before, *page, n,
                                      !c->before_is_changed) - *page;
}

#define CHANGE_FOREACH_RUN(c, page, n)                  \
    for (page = 0; (n = change_next_run(c, &page)); page += n)

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

static void change_discard(const Change *c, uint64_t end)
{
    GuestMemfdMap *map = c->map;
    uint64_t page, n;

    CHANGE_FOREACH_RUN(c, page, n) {
        if (page >= end) {
            return;
        }
        map->ops->discard(map, (c->first + page) * map->page_size,
                          n * map->page_size);
    }
}

static int change_populate(const Change *c)
{
    GuestMemfdMap *map = c->map;
    uint64_t page, n;

    CHANGE_FOREACH_RUN(c, page, n) {
        int ret = map->ops->populate(map, (c->first + page) * map->page_size,
                                     n * map->page_size);
        if (ret) {
            change_discard(c, page);
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
    GuestMemfdMap *map = c->map;
    uint64_t page, n;

    CHANGE_FOREACH_RUN(c, page, n) {
        Change run = {
            .map = map,
            .first = c->first + page,
            .last = c->first + page + n,
            .pages = n,
        };

        if (change_apply(&run, !to_private)) {
            return false;
        }
    }
    return true;
}

/* The state of both halves stays as it is until change_finish(). */
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

static bool change_undo(const Change *c, bool to_private)
{
    if (!to_private) {
        change_discard(c, UINT64_MAX);
    }
    return change_revert(c, to_private) && !(to_private && change_populate(c));
}

static int change_finish(const Change *c, bool to_private)
{
    GuestMemfdMap *map = c->map;

    return map->ops->drop(map, c->first * map->page_size,
                          (c->last - c->first) * map->page_size, !to_private);
}

struct GuestMemfdUndo {
    GArray *changes;            /* that were made */
    bool to_private;
};

/* All pieces, or none: see guest_memfd_map_convert() */
static int64_t convert(const GuestMemfdPiece *pieces, Change *changes, int n,
                       bool to_private, GuestMemfdUndo *undo)
{
    int64_t pages = 0;
    int i, done = 0, ret = 0;

    for (i = 0; i < n; i++) {
        /* Not before: pieces may show the same pages twice. */
        if (!change_init(&changes[done], &pieces[i], to_private)) {
            continue;
        }
        ret = change_begin(&changes[done], to_private);
        if (ret) {
            g_free(changes[done].many);
            goto undo;
        }
        pages += changes[done].pages;
        done++;
    }
    for (i = 0; i < done; i++) {
        ret = change_finish(&changes[i], to_private);
        if (ret) {
            goto undo;
        }
    }
    for (i = 0; i < done; i++) {
        GuestMemfdMapStats *stats = &changes[i].map->stats;

        stats->conversions[to_private]++;
        stats->pages[to_private] += changes[i].pages;
        if (undo) {
            g_array_append_val(undo->changes, changes[i]);
        } else {
            g_free(changes[i].many);
        }
    }
    return pages;

undo:
    /* What was freed is gone, but all pages get back the state they had. */
    while (done--) {
        if (!change_undo(&changes[done], to_private)) {
            ret = -ENOTRECOVERABLE;
        }
        g_free(changes[done].many);
    }
    return ret;
}

void guest_memfd_map_count_failure(GuestMemfdMap *map, int error)
{
    map->stats.failures[MIN(error, GUEST_MEMFD_MAX_ERRNO)]++;
}

int64_t guest_memfd_map_convert(const GuestMemfdPiece *pieces, int n,
                                bool to_private, GuestMemfdUndo *undo)
{
    Change one;
    g_autofree Change *many = n > 1 ? g_new(Change, n) : NULL;

    return convert(pieces, many ?: &one, n, to_private, undo);
}

static void change_clear(void *opaque)
{
    Change *c = opaque;

    g_free(c->many);
}

GuestMemfdUndo *guest_memfd_undo_new(bool to_private)
{
    GuestMemfdUndo *undo = g_new(GuestMemfdUndo, 1);

    undo->to_private = to_private;
    undo->changes = g_array_new(false, false, sizeof(Change));
    g_array_set_clear_func(undo->changes, change_clear);
    return undo;
}

void guest_memfd_undo_free(GuestMemfdUndo *undo)
{
    if (undo) {
        g_array_unref(undo->changes);
        g_free(undo);
    }
}

int guest_memfd_undo(const GuestMemfdUndo *undo)
{
    int i, ret = 0;

    for (i = undo->changes->len - 1; i >= 0; i--) {
        const Change *c = &g_array_index(undo->changes, Change, i);
        const uint32_t page_size = c->map->page_size;
        uint64_t page, n;

        CHANGE_FOREACH_RUN(c, page, n) {
            GuestMemfdPiece piece = {
                .map = c->map,
                .offset = (c->first + page) * page_size,
                .size = n * page_size,
            };

            /* Others may have converted it since: only what is left. */
            if (guest_memfd_map_convert(&piece, 1, !undo->to_private,
                                        NULL) < 0) {
                ret = -ENOTRECOVERABLE;
            }
        }
    }
    return ret;
}
